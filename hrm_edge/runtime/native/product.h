// Vectors of floats, and products of INT8 rows with an INT8 matrix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#include "model.h"

namespace hrm {

// Lanes of a vector of floats; vectors of a row and rows that are summed at once, so that their sums stay in registers.
// Inputs are kept as Codes, kGroup of which fill 32 bits; so are stored weights. kOffset is added to stored weights, for
// VPDPBUSD takes one side without a sign. Without VNNI, x86 multiplies bytes exactly only as 16-bit numbers: VPMADDUBSW
// cuts sums of two products off.
#if defined(__AVX512VNNI__)
typedef int8_t Code;
constexpr int kLanes = 16, kVectors = 4, kRows = 6, kOffset = 128;
#elif defined(__AVXVNNI__)
typedef int8_t Code;
constexpr int kLanes = 8, kVectors = 2, kRows = 6, kOffset = 128;
#elif defined(__AVX2__)
typedef int16_t Code;
constexpr int kLanes = 8, kVectors = 2, kRows = 6, kOffset = 0;
#elif defined(__SSE2__)
typedef int16_t Code;
constexpr int kLanes = 4, kVectors = 2, kRows = 4, kOffset = 0;
#else
typedef int8_t Code;
constexpr int kLanes = 4, kVectors = 4, kRows = 6, kOffset = 0;
#endif
constexpr int kGroup = 4 / sizeof(Code), kPanel = kVectors * kLanes;
// Rows that go through a layer together: weights come from the second or third cache, once for all of them.
constexpr int kBlock = 24;
constexpr int kTile = 6;             // rows of attention and of float products that are summed at once
constexpr int kPair = 2 * kLanes;    // columns that a float product sums at once

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef Code Codes __attribute__((vector_size(sizeof(Code) * kLanes)));
typedef Code Groups __attribute__((vector_size(4 * kLanes)));  // kGroup weights of each of kLanes columns

template <class Vector, class Scalar> Vector load(const Scalar* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class Vector, class Scalar> void store(Scalar* p, Vector v) { std::memcpy(p, &v, sizeof v); }
inline Floats all(float x) { return Floats{} + x; }
inline int padded(int n, int to) { return (n + to - 1) / to * to; }

template <class T> struct Buffer {  // aligned to a cache line, zeros
    explicit Buffer(size_t n = 0) : size(std::max<size_t>(n, 1)) {
        const size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
        data.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        if (!data) throw std::bad_alloc();
        std::memset(data.get(), 0, bytes);
    }
    struct Free { void operator()(T* p) const { std::free(p); } };
    T* get() const { return data.get(); }
    size_t size;
    std::unique_ptr<T, Free> data;
};

// sum, and largest, of the lanes
inline float total(Floats x) {
    float sums[kLanes];
    store(sums, x);
    for (int width = kLanes / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
    return sums[0];
}
inline float greatest(Floats x) {
    float most = x[0];
    for (int i = 1; i < kLanes; ++i) most = std::max(most, x[i]);
    return most;
}

constexpr float kEps = 1e-5f;  // of the norms
constexpr float kMagic = 12582912.f;  // adding it to a small number rounds that to an integer, halves to even

// min(a, b) and max(a, b)
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
inline Floats lesser(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
inline Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
inline Floats lesser(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
inline Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
inline Floats lesser(Floats a, Floats b) { return (Floats)_mm_min_ps((__m128)a, (__m128)b); }
inline Floats larger(Floats a, Floats b) { return (Floats)_mm_max_ps((__m128)a, (__m128)b); }
#else
inline Floats lesser(Floats a, Floats b) { return a < b ? a : b; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
#endif

// e^x for -87.3 <= x <= 88, as 2^n 2^f: 2^f by a polynomial to 9e-8, n added to the exponent. Within 3e-7 where |x| < 10.
inline Floats power_of_e(Floats x) {
    const Floats log2_e = all(1.44269504f), shifted = x * log2_e + all(kMagic);  // n in the low bits
    const Floats f = x * log2_e - (shifted - all(kMagic));
    Floats p = all(1.326472707e-3f);
    p = p * f + all(9.671512649e-3f);
    p = p * f + all(5.550733744e-2f);
    p = p * f + all(2.402224209e-1f);
    p = p * f + all(6.931469776e-1f);
    p = p * f + all(1.f);
    return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// e^x, 0 below -87, e^88 above 88
inline Floats exponential(Floats x) {
    const Floats low = all(-87.3f);
    const Floats p = power_of_e(lesser(larger(x, low), all(88.f)));
    return x < low ? Floats{} : p;
}

// erf(x) to 1.5e-7: Abramowitz and Stegun, 7.1.26
inline Floats error_function(Floats x) {
    const Floats size = x < Floats{} ? -x : x, t = all(1.f) / (size * all(0.3275911f) + all(1.f));
    Floats p = t * all(1.061405429f) + all(-1.453152027f);
    p = p * t + all(1.421413741f);
    p = p * t + all(-0.284496736f);
    p = p * t + all(0.254829592f);
    const Floats y = all(1.f) - p * t * exponential(-size * size);
    return x < Floats{} ? -y : y;
}

inline Floats silu(Floats x) {
    return x / (power_of_e(-larger(lesser(x, all(87.f)), all(-87.f))) + all(1.f));
}
inline Floats gelu(Floats x) { return x * all(0.5f) * (error_function(x * all(0.70710678f)) + all(1.f)); }

// round(x / scale) in the range of int8, halves to even, as QuantizeLinear does
inline Codes rounded(Floats x, float scale) {
    const Floats magic = all(kMagic), most = all(127.f), least = all(-128.f);
    x = x / all(scale);
    x = x > most ? most : x;
    x = x < least ? least : x;
    const Ints whole = __builtin_convertvector((x + magic) - magic, Ints);
#if defined(__AVX2__) && !defined(__AVX512VNNI__)  // compilers take the lanes apart
    const __m256i ints = (__m256i)whole;
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
    const __m128i packed = sizeof(Code) == 2 ? words : _mm_packs_epi16(words, words);
    return load<Codes>(reinterpret_cast<const Code*>(&packed));
#elif defined(__SSE2__) && !defined(__AVX2__)
    const __m128i words = _mm_packs_epi32((__m128i)whole, (__m128i)whole);
    return load<Codes>(reinterpret_cast<const Code*>(&words));
#else
    return __builtin_convertvector(whole, Codes);
#endif
}

// The weights of kLanes columns, in a register: without the empty statement GCC reads them anew for every row, and an
// x86 processor without AVX512 then waits for its two loads a cycle.
inline Groups weights_at(const Code* p) {
    Groups weights = load<Groups>(p);
#if defined(__SSE2__) && !defined(__AVX512VNNI__)
    asm("" : "+x"(weights));
#endif
    return weights;
}

// sums + a group of inputs (`a`) times their weights, of kLanes columns
inline Ints plus_products(Ints sums, Groups weights, int32_t a) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)weights, _mm512_set1_epi32(a));
#elif defined(__AVXVNNI__)
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)weights, _mm256_set1_epi32(a));
#elif defined(__AVX2__)
    return sums + (Ints)_mm256_madd_epi16((__m256i)weights, _mm256_set1_epi32(a));
#elif defined(__SSE2__)
    return sums + (Ints)_mm_madd_epi16((__m128i)weights, _mm_set1_epi32(a));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (Ints)vdotq_s32((int32x4_t)sums, (int8x16_t)weights, vreinterpretq_s8_s32(vdupq_n_s32(a)));
#else
    for (int n = 0; n < kLanes; ++n)
        for (int i = 0; i < 4; ++i) sums[n] += int32_t(weights[4 * n + i]) * int8_t(a >> 8 * i);
    return sums;
#endif
}

// INT8 weights in panels of columns, kGroup inputs of a column side by side.
struct Linear {
    explicit Linear(const HrmLinear& from)
        : in(from.in), out(from.out), input_scale(from.input_scale), weight(size_t(in) * out), scale(out), bias(out) {
        for (int k = 0; k < in; ++k)
            for (int n = 0; n < out; ++n)
                weight.get()[((size_t(n / kPanel) * (in / kGroup) + k / kGroup) * kPanel + n % kPanel) * kGroup + k % kGroup] =
                    Code(from.weight[size_t(k) * out + n] + kOffset);
        for (int n = 0; n < out; ++n) scale.get()[n] = from.weight_scale[n] * from.input_scale;
        if (from.bias) std::copy_n(from.bias, out, bias.get());
    }
    int in, out;  // multiples of 64
    float input_scale;
    Buffer<Code> weight;
    Buffer<float> scale, bias;
};

// columns kPanel * panel and on of c [R, out] = a [R, in] W + bias; totals: sums of the rows of a
template <int R> void product_panel(const Linear& w, const Code* a, const int32_t* totals, int panel, float* c) {
    const Code* weight = w.weight.get() + size_t(panel) * w.in * kPanel;
    Ints sums[R][kVectors];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < kVectors; ++v) sums[r][v] = Ints{} - kOffset * totals[r];
#pragma GCC unroll 2
    for (int k = 0; k < w.in; k += kGroup, weight += kGroup * kPanel) {
        Groups columns[kVectors];
        for (int v = 0; v < kVectors; ++v) columns[v] = weights_at(weight + kGroup * kLanes * v);
        for (int r = 0; r < R; ++r) {
            int32_t group;
            std::memcpy(&group, a + r * w.in + k, 4);
            for (int v = 0; v < kVectors; ++v) sums[r][v] = plus_products(sums[r][v], columns[v], group);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < kVectors; ++v) {
            const int n = panel * kPanel + v * kLanes;
            const Floats scaled = __builtin_convertvector(sums[r][v], Floats) * load<Floats>(w.scale.get() + n);
            store(c + r * w.out + n, scaled + load<Floats>(w.bias.get() + n));
        }
}

// c [rows, out] = a [rows, in] W + bias, at most kBlock rows
inline void product(const Linear& w, const Code* a, float* c, int rows) {
    int32_t totals[kBlock] = {};
    if (kOffset)
        for (int r = 0; r < rows; ++r)
            for (int k = 0; k < w.in; ++k) totals[r] += a[r * w.in + k];
    for (int panel = 0; panel * kPanel < w.out; ++panel)
        for (int r = 0; r < rows; r += kRows) {
            const Code* from = a + r * w.in;
            float* to = c + r * w.out;
            switch (rows - r) {
                case 1: product_panel<1>(w, from, totals + r, panel, to); break;
                case 2: product_panel<2>(w, from, totals + r, panel, to); break;
                case 3: product_panel<3>(w, from, totals + r, panel, to); break;
#if defined(__AVX2__) || !defined(__SSE2__)
                case 4: product_panel<4>(w, from, totals + r, panel, to); break;
                case 5: product_panel<5>(w, from, totals + r, panel, to); break;
#endif
                default: product_panel<kRows>(w, from, totals + r, panel, to);
            }
        }
}

// A matrix that stays in float32 [in, out], in panels of kPair columns. `gated`: a panel has kLanes columns of the first
// half, then those of the second that belong to them.
struct Matrix {
    Matrix() = default;
    Matrix(const float* from, const float* with_bias, int in, int out, bool gated = false)
        : in(in), out(out), weight(size_t(in) * out), bias(out) {
        for (int c = 0; c < out; ++c) {
            const int panel = c / kPair, lane = c % kLanes, second = c % kPair >= kLanes;
            const int source = gated ? panel * kLanes + lane + second * (out / 2) : c;
            for (int k = 0; k < in; ++k)
                weight.get()[(size_t(panel) * in + k) * kPair + c % kPair] = from[size_t(k) * out + source];
            if (with_bias) bias.get()[c] = with_bias[source];
        }
    }
    int in = 0, out = 0;  // out: a multiple of kPair
    Buffer<float> weight, bias;
};

typedef Floats Pair[2];

// use(row, panel, sums) with each panel's sums of the R rows of a [R, in] times W
template <int R, class Use> inline void product(const Matrix& w, const float* a, Use use) {
    const int in = w.in;
    const float* weight = w.weight.get();
    for (int panel = 0; panel * kPair < w.out; ++panel) {
        Pair sums[R];
        for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Floats{};
        for (int k = 0; k < in; ++k, weight += kPair) {
            const Floats first = load<Floats>(weight), second = load<Floats>(weight + kLanes);
            for (int r = 0; r < R; ++r) {
                const float given = a[size_t(r) * in + k];
                sums[r][0] += given * first;
                sums[r][1] += given * second;
            }
        }
        for (int r = 0; r < R; ++r) use(r, panel, sums[r]);
    }
}

// c [R, out] = a [R, in] W + bias
template <int R> void product(const Matrix& w, const float* a, float* c) {
    product<R>(w, a, [&](int r, int panel, const Pair& sums) {
        for (int v = 0; v < 2; ++v) {
            const int at = panel * kPair + v * kLanes;
            store(c + size_t(r) * w.out + at, sums[v] + load<Floats>(w.bias.get() + at));
        }
    });
}

// do_rows(R, row) for all rows from `begin` on, R a constant of at most kTile
template <class Rows> inline void in_tiles(int begin, int end, Rows do_rows) {
    for (int row = begin; row < end; row += kTile) switch (end - row) {
        case 1: do_rows(std::integral_constant<int, 1>{}, row); break;
        case 2: do_rows(std::integral_constant<int, 2>{}, row); break;
        case 3: do_rows(std::integral_constant<int, 3>{}, row); break;
        case 4: do_rows(std::integral_constant<int, 4>{}, row); break;
        case 5: do_rows(std::integral_constant<int, 5>{}, row); break;
        default: do_rows(std::integral_constant<int, kTile>{}, row);
    }
}

}  // namespace hrm
