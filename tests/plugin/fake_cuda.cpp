// A stand-in for libcuda.so.1: remembers what it was asked, and refuses what a test tells it to.
#include <cstdint>
#include <cstring>

extern "C"
{
    int fake_sm = 87;
    int fake_refuse_cubin = 0; // the error that cuModuleLoadData answers a cubin with
    int fake_modules = 0;      // loaded so far
    int fake_ptx = 0;          // of them, PTX
    int fake_shared_allowed = 0;
    unsigned long long fake_context = 1;
    struct
    {
        unsigned grid[3];
        unsigned block[3];
        unsigned shared;
        void* stream;
        void* pointers[3];
        int32_t integers[7];
        void* out;
        void* scratch[2];
        char symbol[64];
    } fake_last{};
    static char last_symbol[64];

    int cuCtxGetCurrent(void** context)
    {
        *context = reinterpret_cast<void*>(0x1000);
        return fake_context == 0 ? (*context = nullptr, 0) : 0;
    }
    int cuCtxGetId(void*, unsigned long long* id)
    {
        *id = fake_context;
        return 0;
    }
    int cuCtxGetDevice(int* device)
    {
        *device = 0;
        return 0;
    }
    int cuDeviceGetAttribute(int* value, int attribute, int)
    {
        *value = attribute == 75 ? fake_sm / 10 : attribute == 76 ? fake_sm % 10 : -1;
        return 0;
    }
    int cuModuleLoadData(void** module, void const* image)
    {
        bool const cubin = std::memcmp(image, "\x7f" "ELF", 4) == 0;
        if (cubin && fake_refuse_cubin)
        {
            return fake_refuse_cubin;
        }
        fake_ptx += !cubin;
        *module = reinterpret_cast<void*>(static_cast<uintptr_t>(++fake_modules));
        return 0;
    }
    int cuModuleGetFunction(void** function, void* module, char const* name)
    {
        std::strncpy(last_symbol, name, sizeof last_symbol - 1);
        *function = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(module) + 0x100);
        return 0;
    }
    int cuFuncSetAttribute(void*, int attribute, int value)
    {
        fake_shared_allowed = attribute == 8 ? value : -1;
        return 0;
    }
    int cuLaunchKernel(void*, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
        unsigned shared, void* stream, void** values, void**)
    {
        fake_last = {{gx, gy, gz}, {bx, by, bz}, shared, stream, {}, {}, nullptr, {}, {}};
        for (int i = 0; i < 3; ++i)
        {
            std::memcpy(&fake_last.pointers[i], values[i], sizeof(void*));
        }
        for (int i = 0; i < 7; ++i)
        {
            std::memcpy(&fake_last.integers[i], values[3 + i], sizeof(int32_t));
        }
        std::memcpy(&fake_last.out, values[10], sizeof(void*));
        std::memcpy(&fake_last.scratch[0], values[11], sizeof(void*));
        std::memcpy(&fake_last.scratch[1], values[12], sizeof(void*));
        std::memcpy(fake_last.symbol, last_symbol, sizeof last_symbol);
        return 0;
    }
}
