#include "driver.h"

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <utility>

namespace hrm_edge
{
namespace
{

using Result = int;
constexpr int kMAJOR = 75;                 // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kMINOR = 76;                 // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
constexpr int kMAX_DYNAMIC_SHARED = 8;     // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int32_t kSTATIC_SHARED = 49152;  // above it a function must be told

struct Api
{
    Result (*ctxGetCurrent)(void**);
    Result (*ctxGetId)(void*, unsigned long long*); // CUDA 12 and newer
    Result (*ctxGetDevice)(int*);
    Result (*deviceGetAttribute)(int*, int, int);
    Result (*moduleLoadData)(void**, void const*);
    Result (*moduleGetFunction)(void**, void*, char const*);
    Result (*funcSetAttribute)(void*, int, int);
    Result (*launchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
        void**);
    std::string error;
};

template <typename Function>
void bind(void* library, char const* name, Function& function, std::string& error)
{
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr)
    {
        error = std::string("libcuda.so.1 has no ") + name;
    }
}

Api const& api()
{
    static Api const bound = [] {
        Api found{};
        void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr)
        {
            found.error = std::string("no CUDA driver: ") + dlerror();
            return found;
        }
        std::string optional;
        bind(library, "cuCtxGetCurrent", found.ctxGetCurrent, found.error);
        bind(library, "cuCtxGetId", found.ctxGetId, optional);
        bind(library, "cuCtxGetDevice", found.ctxGetDevice, found.error);
        bind(library, "cuDeviceGetAttribute", found.deviceGetAttribute, found.error);
        bind(library, "cuModuleLoadData", found.moduleLoadData, found.error);
        bind(library, "cuModuleGetFunction", found.moduleGetFunction, found.error);
        bind(library, "cuFuncSetAttribute", found.funcSetAttribute, found.error);
        bind(library, "cuLaunchKernel", found.launchKernel, found.error);
        return found;
    }();
    return bound;
}

bool succeeded(Result code, char const* call, std::string& error)
{
    if (code != 0)
    {
        error = std::string(call) + " failed with CUDA driver error " + std::to_string(code);
    }
    return code == 0;
}

// A context's address may be used again after it is destroyed; its id is not.
bool contextKey(unsigned long long& key, std::string& error)
{
    void* context = nullptr;
    if (!succeeded(api().ctxGetCurrent(&context), "cuCtxGetCurrent", error))
    {
        return false;
    }
    if (context == nullptr)
    {
        error = "no CUDA context is current";
        return false;
    }
    key = reinterpret_cast<unsigned long long>(context);
    return api().ctxGetId == nullptr || succeeded(api().ctxGetId(context, &key), "cuCtxGetId", error);
}

bool loadImage(Kernel const& kernel, void*& function, std::string& error)
{
    void* module = nullptr;
    return succeeded(api().moduleLoadData(&module, kernel.image), "cuModuleLoadData", error)
        && succeeded(api().moduleGetFunction(&function, module, "attention_kernel"), "cuModuleGetFunction", error)
        && (kernel.shared <= kSTATIC_SHARED
            || succeeded(
                api().funcSetAttribute(function, kMAX_DYNAMIC_SHARED, kernel.shared), "cuFuncSetAttribute", error));
}

} // namespace

int32_t currentSm(std::string& error)
{
    if (!api().error.empty())
    {
        error = api().error;
        return 0;
    }
    int device = 0;
    int major = 0;
    int minor = 0;
    bool const ok = succeeded(api().ctxGetDevice(&device), "cuCtxGetDevice", error)
        && succeeded(api().deviceGetAttribute(&major, kMAJOR, device), "cuDeviceGetAttribute", error)
        && succeeded(api().deviceGetAttribute(&minor, kMINOR, device), "cuDeviceGetAttribute", error);
    return ok ? 10 * major + minor : 0;
}

bool load(Case const& wanted, Loaded& loaded, std::string& error)
{
    static std::mutex mutex;
    static std::map<std::pair<unsigned long long, int32_t>, void*> functions;
    int32_t const sm = currentSm(error);
    unsigned long long context = 0;
    if (sm == 0 || !contextKey(context, error))
    {
        return false;
    }
    if (sm < kLEAST_SM)
    {
        error = "the attention plugin needs compute capability 8.0, this GPU has sm_" + std::to_string(sm);
        return false;
    }
    error = "this library has no kernel for element type " + std::to_string(wanted.element) + ", head size "
        + std::to_string(wanted.headDim) + (wanted.grid ? ", heads of a board" : "") + ", length " + std::to_string(wanted.length);
    std::lock_guard<std::mutex> const lock(mutex);
    int32_t const tried[] = {find(sm, wanted), sm == baseSm() ? -1 : find(baseSm(), wanted)};
    for (int32_t const index : tried)
    {
        if (index < 0)
        {
            continue;
        }
        Kernel const& kernel = kernels()[static_cast<std::size_t>(index)];
        auto const known = functions.find({context, index});
        void* function = known == functions.end() ? nullptr : known->second;
        if (function != nullptr || loadImage(kernel, function, error))
        {
            functions[{context, index}] = function;
            loaded = {&kernel, function};
            error.clear();
            return true;
        }
    }
    return false;
}

bool launch(Loaded const& loaded, int64_t sequences, Arguments const& arguments, void* stream, std::string& error)
{
    Arguments values = arguments;
    void* scratch[2] = {nullptr, nullptr};
    void* pointers[] = {&values.qkv, &values.cos, &values.sin, &values.length, &values.heads, &values.ropeStride,
        &values.grid[0], &values.grid[1], &values.grid[2], &values.grid[3], &values.out, &scratch[0], &scratch[1]};
    int64_t const tiles = (values.length + loaded.kernel->blockM - 1) / loaded.kernel->blockM;
    int64_t const blocks = sequences * tiles;
    if (blocks > INT32_MAX)
    {
        error = "the batch is too large for one launch";
        return false;
    }
    return succeeded(api().launchKernel(loaded.function, static_cast<unsigned>(blocks), 1, 1,
                         static_cast<unsigned>(loaded.kernel->threads), 1, 1,
                         static_cast<unsigned>(loaded.kernel->shared), stream, pointers, nullptr),
        "cuLaunchKernel", error);
}

} // namespace hrm_edge
