// What Python hands over: pointers that have to live only while hrm_new runs.
//
// Axes: T positions, S cells, P = T - S puzzle positions, D hidden, H heads, F inner, V vocabulary, Q halting outputs;
// of a lattice: N symbols, W symbol width, D = N W.
#pragma once

#include <cstdint>

extern "C" {
struct HrmLinear {  // y = x W + bias: int8 weight [in, out], float scale [out]; x is rounded in units of input_scale
    int32_t in, out;
    const int8_t* weight;
    const float *weight_scale, *bias;  // bias: [out], or null
    float input_scale;
};
struct HrmModel {
    int32_t T, S, D, H, F, V, Q, l_layers, h_layers, l_cycles, h_cycles, most_seen;
    int32_t gelu;    // 1: the MLP is up, GELU, down; 0: SwiGLU
    int32_t pooled;  // 1: q is from the mean over positions of [z_h, z_l]; 0: from z_h's first position
    float puzzle_scale;
    const HrmLinear* linears;  // of every layer of L, then of H: qkv (Q scaled already), o, gate and up (or up), down
    const float* embedding;    // [V, D], scaled
    const float* positions;    // [T, D], or null
    const int32_t* seen;       // [H, T, most_seen]: the positions that a head's query sees, or null
    const int32_t* seen_count; // [H]: how many of them, 0 for all of the T
    const float *cos, *sin;    // [T, D / H / 2], or null
    const float *lm_head, *lm_bias, *q_head, *q_bias;  // [D, V], [V] or null, [D or 2 D, Q], [Q]
    // [2 (layers of L, then of H) + 2, 2, D]: weight and bias of LayerNorm after attention and after the MLP of every
    // layer, then at the entry of L and of H; null: RMSNorm without weights, and none at the entries
    const float* norms;
    const float *h_to_l, *h_to_l_bias, *l_to_h, *l_to_h_bias;  // [D, D], [D]; null: the levels are added as they are
};
struct HrmGroupBlock {  // float32 weights [in, out]; of what rows, columns, boxes and cells send, in this order
    const float *pool, *sent[4], *gate_up, *gate_up_bias, *down;  // [W, W], [W, 2 F] each, [W, 2 F], [2 F], [F, W]
};
struct HrmLattice {
    int32_t N, box_rows, box_columns, W, F, V, layers, cycles;
    const HrmGroupBlock* blocks;
    const float* embedding;                // [V, D], scaled
    const float *lm_head, *q_head, *q_bias;  // [W], [W], [1]
};
}
