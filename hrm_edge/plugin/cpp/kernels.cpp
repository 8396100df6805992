#include "kernels.h"

// kernels.inc lists the files of the folder HRM_KERNELS_DIR; the assembler takes them in as they are.
#define HRM_META(abi, version, base)
#define HRM_KERNEL(...)
#define HRM_BLOB(id, file)                                                                                             \
    asm(".section .rodata,\"a\",@progbits\n"                                                                           \
        ".balign 16\n"                                                                                                 \
        "hrm_blob_" #id ":\n"                                                                                          \
        ".incbin \"" HRM_KERNELS_DIR "/" file                                                                          \
        "\"\n"                                                                                                         \
        ".previous\n");                                                                                                \
    extern "C" __attribute__((visibility("hidden"))) unsigned char const hrm_blob_##id[];
#include "kernels.inc"
#undef HRM_META
#undef HRM_KERNEL
#undef HRM_BLOB

namespace hrm_edge
{

std::vector<Kernel> const& kernels()
{
#define HRM_META(abi, version, base)
#define HRM_BLOB(id, file)
#define HRM_KERNEL(id, sm, element, headDim, rope, grid, maxLength, maxSequences, blockM, threads, shared)             \
    {hrm_blob_##id, sm, element, headDim, rope != 0, grid != 0, maxLength, maxSequences, blockM, threads, shared},
    static std::vector<Kernel> const table{
#include "kernels.inc"
    };
    return table;
#undef HRM_META
#undef HRM_BLOB
#undef HRM_KERNEL
}

int32_t find(int32_t sm, Case const& wanted)
{
    auto const& all = kernels();
    for (std::size_t i = 0; i < all.size(); ++i)
    {
        Kernel const& kernel = all[i];
        if (kernel.sm == sm && kernel.element == wanted.element && kernel.headDim == wanted.headDim
            && kernel.rope == wanted.rope && kernel.grid == wanted.grid && (kernel.maxLength == 0 || wanted.length <= kernel.maxLength)
            && (kernel.maxSequences == 0 || wanted.sequences <= kernel.maxSequences))
        {
            return static_cast<int32_t>(i);
        }
    }
    return -1;
}

#define HRM_BLOB(id, file)
#define HRM_KERNEL(...)
#define HRM_META(abiNumber, version, base)                                                                             \
    int32_t abi()                                                                                                      \
    {                                                                                                                  \
        return abiNumber;                                                                                              \
    }                                                                                                                  \
    char const* packageVersion()                                                                                       \
    {                                                                                                                  \
        return version;                                                                                                \
    }                                                                                                                  \
    int32_t baseSm()                                                                                                   \
    {                                                                                                                  \
        return base;                                                                                                   \
    }
#include "kernels.inc"

} // namespace hrm_edge
