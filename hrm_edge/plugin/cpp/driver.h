// The few calls of the CUDA driver that a launch needs. libcuda is opened at the first call and not linked, so that
// the library loads, and its creator is found, on a machine without a GPU.
#pragma once

#include "kernels.h"

#include <cstdint>
#include <string>

namespace hrm_edge
{

// What the kernels are passed, in this order; two unused scratch pointers follow.
struct Arguments
{
    void const* qkv;
    void const* cos;
    void const* sin;
    int32_t length;
    int32_t heads;
    int32_t ropeStride;
    int32_t grid[4]; // rows and columns of the board and of its boxes; not read by kernels for all positions
    void* out;
};

// A kernel of the current context, ready to be launched.
struct Loaded
{
    Kernel const* kernel{nullptr};
    void* function{nullptr};
};

// Compute capability of the current device (87 for 8.7), or 0 with `error` set.
int32_t currentSm(std::string& error);

// Loads the kernel for the case: the architecture's own binary, and where the driver refuses it, the base's PTX.
// What was loaded into a context is kept. False with `error` set on failure.
bool load(Case const& wanted, Loaded& loaded, std::string& error);

bool launch(Loaded const& loaded, int64_t sequences, Arguments const& arguments, void* stream, std::string& error);

} // namespace hrm_edge
