// The compiled kernels that this library carries, and which of them serves a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hrm_edge
{

// Element types by index: the order of hrm_edge/plugin/contract.py.
enum Element : int32_t
{
    kFLOAT16 = 0,
    kBFLOAT16 = 1,
    kFLOAT32 = 2,
};

// What a call needs. `sequences` is batch * heads.
struct Case
{
    int32_t element;
    int32_t headDim;
    bool rope;
    bool grid;
    int64_t length;
    int64_t sequences;
};

struct Kernel
{
    unsigned char const* image; // cubin, or PTX ending in a zero byte
    int32_t sm;
    int32_t element;
    int32_t headDim;
    bool rope;
    bool grid;
    int64_t maxLength;    // 0: no limit
    int64_t maxSequences; // 0: no limit
    int32_t blockM;
    int32_t threads;
    int32_t shared; // bytes
};

constexpr int32_t kLEAST_SM = 80;
constexpr int64_t kMAX_LENGTH = 1024;

// All kernels, in the order in which they are tried (that of kernels.json).
std::vector<Kernel> const& kernels();

// Index of the first kernel of architecture `sm` that serves the case, or -1.
int32_t find(int32_t sm, Case const& wanted);

// Architecture whose PTX serves those that have no binaries of their own.
int32_t baseSm();

int32_t abi();
char const* packageVersion();

} // namespace hrm_edge
