// Explicit SIMD for kernels that are written once: a work-item is a hardware thread that holds whole vectors.
//
// What differs between devices has two bodies, simd_gpu.hpp over ESIMD and simd_cpu.hpp over vector types (of patches
// simd_patches_gpu.hpp and simd_patches_cpu.hpp), and this header is the only place that asks which device it is on
// (ARCMTP_GPU is defined for a GPU). Integer sums are exact, every float operation is an explicit IEEE one in a written
// order, and exp and log are this project's own, so that a value's bits do not depend on how it was vectorised.
#pragma once

// Not <sycl/sycl.hpp>, which declares what hosts need too: with it a small kernel compiles in 1.7 instead of 0.4 s on
// the CPU, 2.1 instead of 1.1 for a GPU.
#include <sycl/atomic_ref.hpp>
#include <sycl/ext/oneapi/free_function_kernel_properties.hpp>
#include <sycl/ext/oneapi/free_function_queries.hpp>
#include <sycl/ext/oneapi/work_group_static.hpp>
#include <sycl/group_barrier.hpp>

namespace simd {

using i8 = signed char;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using half = _Float16;

constexpr int LANES = 16;

/// What codes mean that are places in a list of values: each value plus ZERO, which leaves none below 0, in a byte.
template <int... VALUES> struct Levels {
    static constexpr int COUNT = sizeof...(VALUES);
    static constexpr int LIST[COUNT] = {VALUES...};
    static constexpr int least() {
        int found = LIST[0];
        for (int value : LIST)
            found = value < found ? value : found;
        return found;
    }
    static constexpr int ZERO = -least();
    static constexpr u32 level(int code) { return u32(LIST[code % COUNT] + ZERO); }
    /// The levels of codes 4 index … 4 index + 3, the first lowest.
    static constexpr u32 word(int index) {
        u32 bytes = 0;
        for (int i = 0; i < 4; ++i)
            bytes |= level(4 * index + i) << 8 * i;
        return bytes;
    }
    /// Bits of the largest level.
    static constexpr int bits() {
        u32 all = 0;
        for (int code = 0; code < COUNT; ++code)
            all |= level(code);
        int count = 0;
        for (; all >> count != 0;)
            ++count;
        return count;
    }
    /// Bit `bit` of the level of each code, code c's in bit c.
    static constexpr u32 truth(int bit) {
        u32 table = 0;
        for (int code = 0; code < COUNT; ++code)
            table |= (level(code) >> bit & 1) << code;
        return table;
    }
};

} // namespace simd

#ifdef ARCMTP_GPU
#include "simd_patches_gpu.hpp"
#else
#include "simd_patches_cpu.hpp"
#endif

namespace simd {

inline int group_index() { return int(sycl::ext::oneapi::this_work_item::get_nd_item<1>().get_group_linear_id()); }
inline int group_count() { return int(sycl::ext::oneapi::this_work_item::get_nd_item<1>().get_group_range(0)); }
inline int team_rank() { return int(sycl::ext::oneapi::this_work_item::get_nd_item<1>().get_local_linear_id()); }

/// Whether this work-group is the last of `count` to come here: then it alone sees what all of them stored before, and
/// the counter is zero again for the next launch. Uses the first 64 bytes of team memory.
template <int TEAM> inline bool last_arrival(int *counter, int count) {
    fence_stores();
    team_barrier<TEAM>();
    int before = 0;
    if (team_rank() == 0) {
        before = arrive(counter);
        if (before == count - 1)
            simd::store<int, 1>(counter, vec<int, 1>(0));
    }
    if constexpr (TEAM > 1) {
        if (team_rank() == 0)
            simd::team_store<int, LANES>(0, vec<int, LANES>(before));
        team_barrier<TEAM>();
        before = simd::lane<int, LANES>(simd::team_load<int, LANES>(0), 0);
        team_barrier<TEAM>();
    }
    return before == count - 1;
}

/// Sum of the lanes, halves folded onto each other: one order on every device.
template <int N> inline float sum(vec<float, N> v) {
    if constexpr (N == 1)
        return simd::lane<float, N>(v, 0);
    else
        return simd::sum<N / 2>(
            vec<float, N / 2>(simd::part<N / 2, 0, float, N>(v) + simd::part<N / 2, N / 2, float, N>(v)));
}

template <class T, int N> inline T largest(vec<T, N> v) {
    if constexpr (N == 1)
        return simd::lane<T, N>(v, 0);
    else
        return simd::largest<T, N / 2>(
            simd::max<T, N / 2>(simd::part<N / 2, 0, T, N>(v), simd::part<N / 2, N / 2, T, N>(v)));
}

template <class T, int N> inline T smallest(vec<T, N> v) {
    if constexpr (N == 1)
        return simd::lane<T, N>(v, 0);
    else
        return simd::smallest<T, N / 2>(
            simd::min<T, N / 2>(simd::part<N / 2, 0, T, N>(v), simd::part<N / 2, N / 2, T, N>(v)));
}

/// e^x: Cephes' polynomial after x = n log 2 + r; 0 below -87.3, within 2 units of the last place elsewhere.
template <int N> inline vec<float, N> exp(vec<float, N> x) {
    using V = vec<float, N>;
    const V limited = simd::min<float, N>(simd::max<float, N>(x, V(-87.3f)), V(88.3f));
    const V n = simd::rint<N>(V(limited * 1.44269504f));
    V r = simd::fma<float, N>(n, V(-0.693359375f), limited);
    r = simd::fma<float, N>(n, V(2.12194440e-4f), r);
    V p = V(1.9875691500e-4f);
    p = simd::fma<float, N>(p, r, V(1.3981999507e-3f));
    p = simd::fma<float, N>(p, r, V(8.3334519073e-3f));
    p = simd::fma<float, N>(p, r, V(4.1665795894e-2f));
    p = simd::fma<float, N>(p, r, V(1.6666665459e-1f));
    p = simd::fma<float, N>(p, r, V(5.0000001201e-1f));
    p = simd::fma<float, N>(p, V(r * r), V(r + 1.0f));
    const vec<int, N> power = (simd::convert<int, float, N>(n) + 127) << 23;
    const V result = p * V(simd::bitcast<float, int, N>(power));
    return simd::select<float, N>(x < V(-87.3f), V(0.0f), result);
}

/// log((1 + s) / (1 - s)) for 0 <= s <= 1/3: 2 atanh(s), eight terms of its series (error below 1e-8).
template <int N> inline vec<float, N> log_ratio(vec<float, N> s) {
    using V = vec<float, N>;
    const V q = s * s;
    V p = V(1.0f / 17);
    for (int odd = 15; odd >= 1; odd -= 2)
        p = simd::fma<float, N>(p, q, V(1.0f / odd));
    return V(2.0f) * s * p;
}

/// log(1 + t) for 0 <= t <= 1.
template <int N> inline vec<float, N> log1p(vec<float, N> t) {
    return simd::log_ratio<N>(simd::divide<N>(t, vec<float, N>(t + 2.0f)));
}

/// log(x) of a normal x > 0; NaN stays NaN.
template <int N> inline vec<float, N> log(vec<float, N> x) {
    using V = vec<float, N>;
    const vec<int, N> all = simd::bitcast<int, float, N>(x);
    const V exponent = simd::convert<float, int, N>(vec<int, N>((all >> 23) - 127));
    const V mantissa = simd::bitcast<float, int, N>(vec<int, N>((all & 0x007fffff) | 0x3f800000));
    const V small = simd::fma<float, N>(exponent, V(-2.12194440e-4f), simd::log1p<N>(mantissa - 1.0f));
    const V result = simd::fma<float, N>(exponent, V(0.693359375f), small);
    return simd::select<float, N>(x == x, result, x);
}

template <int N> inline vec<float, N> sigmoid(vec<float, N> x) {
    return simd::divide<N>(vec<float, N>(1.0f), vec<float, N>(simd::exp<N>(-x) + 1.0f));
}
template <int N> inline vec<float, N> silu(vec<float, N> x) {
    return simd::divide<N>(x, vec<float, N>(simd::exp<N>(-x) + 1.0f));
}
template <int N> inline vec<float, N> softplus(vec<float, N> x) {
    return simd::max<float, N>(x, vec<float, N>(0.0f)) + simd::log1p<N>(simd::exp<N>(-simd::abs<N>(x)));
}

} // namespace simd
