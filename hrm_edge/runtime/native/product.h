// Vectors of floats, and products of INT8 rows with an INT8 matrix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#include "model.h"

namespace hrm {

// Lanes of a vector of floats, and how many vectors of a row are summed at once: with kRows rows their sums fill the
// registers. kOffset is added to stored weights, for VPDPBUSD takes one side without a sign.
#if defined(__AVX512VNNI__)
constexpr int kLanes = 16, kVectors = 4, kOffset = 128;
#elif defined(__AVXVNNI__)
constexpr int kLanes = 8, kVectors = 2, kOffset = 128;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kVectors = 2, kOffset = 0;
#else
constexpr int kLanes = 4, kVectors = 4, kOffset = 0;
#endif
constexpr int kRows = 6, kPanel = kVectors * kLanes;

typedef float Floats __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

template <class Vector, class Scalar> Vector load(const Scalar* p) { return *reinterpret_cast<const Vector*>(p); }
template <class Vector, class Scalar> void store(Scalar* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
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
    p *= reinterpret_cast<const Floats&>(power);
    return tiny ? Floats{} : p;
}

// round(x / scale) to int8, halves to even, as QuantizeLinear does
inline Bytes rounded(Floats x, float scale) {
    const Floats magic = all(kMagic), most = all(127.f), least = all(-128.f);
    x = x / all(scale);
    x = x > most ? most : x;
    x = x < least ? least : x;
    return __builtin_convertvector(__builtin_convertvector((x + magic) - magic, Ints), Bytes);
}

// sums + four inputs (the bytes of `a`) times their weights, of kLanes columns
inline Ints plus_products(Ints sums, const int8_t* weights, int32_t a) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, _mm512_load_si512(weights), _mm512_set1_epi32(a));
#elif defined(__AVXVNNI__)
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, _mm256_load_si256((const __m256i*)weights), _mm256_set1_epi32(a));
#elif defined(__AVX2__)
    // |a| w with a's sign on w: two of them fit 16 bits, for weights are -127 to 127
    const __m256i inputs = _mm256_set1_epi32(a), signed_weights =
        _mm256_sign_epi8(_mm256_load_si256((const __m256i*)weights), inputs);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(inputs), signed_weights);
    return sums + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (Ints)vdotq_s32((int32x4_t)sums, vld1q_s8(weights), vreinterpretq_s8_s32(vdupq_n_s32(a)));
#else
    for (int n = 0; n < kLanes; ++n)
        for (int i = 0; i < 4; ++i) sums[n] += int32_t(weights[4 * n + i]) * int8_t(a >> 8 * i);
    return sums;
#endif
}

// Weights in panels of columns, four inputs of a column side by side.
struct Linear {
    explicit Linear(const HrmLinear& from)
        : in(from.in), out(from.out), input_scale(from.input_scale), weight(size_t(in) * out), scale(out) {
        for (int k = 0; k < in; ++k)
            for (int n = 0; n < out; ++n)
                weight.get()[((size_t(n / kPanel) * (in / 4) + k / 4) * kPanel + n % kPanel) * 4 + k % 4] =
                    int8_t(from.weight[size_t(k) * out + n] + kOffset);
        for (int n = 0; n < out; ++n) scale.get()[n] = from.weight_scale[n] * from.input_scale;
    }
    int in, out;  // multiples of 16 and of 64
    float input_scale;
    Buffer<int8_t> weight;
    Buffer<float> scale;
};

// columns kPanel * panel and on of c [R, out] = a [R, in] W; totals: sums of the rows of a
template <int R> void product_panel(const Linear& w, const int8_t* a, const int32_t* totals, int panel, float* c) {
    const int8_t* weight = w.weight.get() + size_t(panel) * w.in * kPanel;
    Ints sums[R][kVectors];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < kVectors; ++v) sums[r][v] = Ints{} - kOffset * totals[r];
    for (int k = 0; k < w.in; k += 4, weight += 4 * kPanel)
        for (int r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, a + r * w.in + k, 4);
            for (int v = 0; v < kVectors; ++v) sums[r][v] = plus_products(sums[r][v], weight + 4 * kLanes * v, four);
        }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < kVectors; ++v) {
            const int n = panel * kPanel + v * kLanes;
            store(c + r * w.out + n, __builtin_convertvector(sums[r][v], Floats) * load<Floats>(w.scale.get() + n));
        }
}

template <int R> void product_rows(const Linear& w, const int8_t* a, float* c) {
    int32_t totals[R] = {};
    for (int r = 0; r < R; ++r)
        for (int k = 0; k < w.in; ++k) totals[r] += a[r * w.in + k];
    for (int panel = 0; panel * kPanel < w.out; ++panel) product_panel<R>(w, a, totals, panel, c);
}

// c [rows, out] = a [rows, in] W, at most kRows rows
inline void product(const Linear& w, const int8_t* a, float* c, int rows) {
    switch (rows) {
        case 1: return product_rows<1>(w, a, c);
        case 2: return product_rows<2>(w, a, c);
        case 3: return product_rows<3>(w, a, c);
        case 4: return product_rows<4>(w, a, c);
        case 5: return product_rows<5>(w, a, c);
        default: return product_rows<kRows>(w, a, c);
    }
}

}  // namespace hrm
