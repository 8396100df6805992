// What Python hands over: pointers that have to live only while hrm_new runs.
//
// Axes: T positions, S cells, P = T - S puzzle positions, D hidden, H heads, F inner, V vocabulary, Q halting outputs.
#pragma once

#include <cstdint>

extern "C" {
struct HrmLinear {  // y = x W: int8 weight [in, out], float scale [out]; x is rounded in units of input_scale
    int32_t in, out;
    const int8_t* weight;
    const float* weight_scale;
    float input_scale;
};
struct HrmModel {
    int32_t T, S, D, H, F, V, Q, l_layers, h_layers, l_cycles, h_cycles, most_seen;
    float puzzle_scale;
    const HrmLinear* linears;  // of every layer of L, then of H: qkv (Q scaled already), o, gate and up, down
    const float* embedding;    // [V, D], scaled
    const float* positions;    // [T, D], or null
    const int32_t* seen;       // [H, T, most_seen]: the positions that a head's query sees, or null
    const int32_t* seen_count; // [H]: how many of them, 0 for all of the T
    const float *cos, *sin;    // [T, D / H / 2], or null
    const float *lm_head, *q_head, *q_bias;  // [D, V], [D, Q], [Q]
};
}
