// Vectors of floats, and products of INT8 rows with an INT8 matrix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
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
constexpr int kQueries = 6;  // rows of attention that are summed at once

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

constexpr float kMagic = 12582912.f;  // adding it to a small number rounds that to an integer, halves to even

// e^x, 0 below -87, e^88 above 88: 2^n times a polynomial in the rest (Cephes' expf), to 2 units in the last place.
inline Floats exponential(Floats x) {
    const Floats magic = all(kMagic), low = all(-87.3f), high = all(88.f);
    const auto tiny = x < low;
    x = tiny ? low : x;
    x = x > high ? high : x;
    const Floats n = (x * all(1.44269504f) + magic) - magic;
    const Floats r = (x - n * all(0.693359375f)) + n * all(2.12194440e-4f);
    Floats p = all(1.9875691500e-4f);
    p = p * r + all(1.3981999507e-3f);
    p = p * r + all(8.3334519073e-3f);
    p = p * r + all(4.1665795894e-2f);
    p = p * r + all(1.6666665459e-1f);
    p = p * r + all(5.0000001201e-1f);
    p = p * r * r + r + all(1.f);
    const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    p *= load<Floats>(reinterpret_cast<const int32_t*>(&power));
    return tiny ? Floats{} : p;
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

inline Floats silu(Floats x) { return x / (exponential(-x) + all(1.f)); }
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

// A square matrix that stays in float32, in panels of columns.
struct Matrix {
    Matrix() = default;
    Matrix(const float* from, const float* with_bias, int n) : size(n), weight(size_t(n) * n), bias(n) {
        for (int k = 0; k < n; ++k)
            for (int c = 0; c < n; ++c)
                weight.get()[(size_t(c / kPanel) * n + k) * kPanel + c % kPanel] = from[size_t(k) * n + c];
        std::copy_n(with_bias, n, bias.get());
    }
    int size = 0;
    Buffer<float> weight, bias;
};

// c [R, n] = a [R, n] W + bias
template <int R> void product(const Matrix& w, const float* a, float* c) {
    const int n = w.size;
    for (int panel = 0; panel * kPanel < n; ++panel) {
        const float* weight = w.weight.get() + size_t(panel) * n * kPanel;
        Floats sums[R][kVectors] = {};
        for (int k = 0; k < n; ++k, weight += kPanel)
            for (int v = 0; v < kVectors; ++v) {
                const Floats column = load<Floats>(weight + kLanes * v);
                for (int r = 0; r < R; ++r) sums[r][v] += a[size_t(r) * n + k] * column;
            }
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < kVectors; ++v) {
                const int at = panel * kPanel + v * kLanes;
                store(c + size_t(r) * n + at, sums[r][v] + load<Floats>(w.bias.get() + at));
            }
    }
}

}  // namespace hrm
