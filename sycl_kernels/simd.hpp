// Explicit SIMD for kernels that are written once: a work-item is a hardware thread that holds whole vectors.
//
// This header has two bodies, ESIMD for the GPU (ARCMTP_GPU is defined) and vector types for the CPU, and is the only
// place that knows which device it is on. Integer sums are exact, every float operation is an explicit IEEE one in a
// written order, and exp and log are this project's own, so that a value's bits do not depend on how it was vectorised.
#pragma once

#include <sycl/sycl.hpp>
#ifdef ARCMTP_GPU
#include <sycl/ext/intel/esimd.hpp>
#include <sycl/ext/intel/experimental/esimd/math.hpp>
#endif

namespace simd {

using i8 = signed char;
using u8 = unsigned char;
using u32 = unsigned int;
using u64 = unsigned long long;
using half = _Float16;

constexpr int LANES = 16;

#ifdef ARCMTP_GPU // ------------------------------------------------------------------------------------------- GPU

namespace esimd = sycl::ext::intel::esimd;

template <class T> struct element {
    using type = T;
};
template <> struct element<half> {
    using type = sycl::half;
};
template <class T, int N> using vec = esimd::simd<typename element<T>::type, N>;
template <int N> using mask = esimd::simd_mask<N>;

/// Activation codes lie in k order for every weight width: dpas pairs them by position.
constexpr int ACTIVATION_ORDERS = 1;
template <int BITS> constexpr int activation_order() { return 0; }

template <class T, int N> inline vec<T, N> load(const T *from) {
    return esimd::block_load<typename element<T>::type, N>(
        reinterpret_cast<const typename element<T>::type *>(from),
        esimd::properties{esimd::alignment<(sizeof(T) < 4 ? 4 : sizeof(T))>});
}

template <class T, int N> inline void store(T *to, vec<T, N> value) {
    esimd::block_store<typename element<T>::type, N>(
        reinterpret_cast<typename element<T>::type *>(to), value,
        esimd::properties{esimd::alignment<(sizeof(T) < 4 ? 4 : sizeof(T))>});
}

template <class To, class From, int N> inline vec<To, N> convert(esimd::simd<From, N> v) {
    return esimd::convert<typename element<To>::type>(v);
}
template <class To, class From, int N> inline auto bitcast(esimd::simd<From, N> v) {
    return vec<To, N *int(sizeof(From)) / int(sizeof(To))>(v.template bit_cast_view<typename element<To>::type>());
}
template <class T, int N> inline vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
    return sycl::ext::intel::experimental::esimd::fma(a, b, c);
}
template <class T, int N> inline esimd::simd<T, N> max(esimd::simd<T, N> a, esimd::simd<T, N> b) {
    return esimd::max<T, N>(a, b);
}
template <class T, int N> inline esimd::simd<T, N> min(esimd::simd<T, N> a, esimd::simd<T, N> b) {
    return esimd::min<T, N>(a, b);
}
/// The upper half of each 64-bit product.
template <int N> inline vec<u32, N> multiply_high(vec<u32, N> a, vec<u32, N> b) {
    vec<u32, N> low;
    return sycl::ext::intel::experimental::esimd::imul<u32, u32, u32, N>(low, a, b);
}
template <int N> inline esimd::simd<float, N> abs(esimd::simd<float, N> v) { return esimd::abs<float, N>(v); }
template <int N> inline esimd::simd<float, N> rint(esimd::simd<float, N> v) { return esimd::rnde<float, N>(v); }
template <int N> inline esimd::simd<float, N> sqrt(esimd::simd<float, N> v) { return esimd::sqrt_ieee<float, N>(v); }
template <int N> inline esimd::simd<float, N> divide(esimd::simd<float, N> a, esimd::simd<float, N> b) {
    return esimd::div_ieee<float, N>(a, b);
}
template <class T, int N> inline esimd::simd<T, N> select(mask<N> m, esimd::simd<T, N> yes, esimd::simd<T, N> no) {
    return esimd::merge(yes, no, m);
}
template <int COUNT, int OFFSET, class T, int N> inline esimd::simd<T, COUNT> part(esimd::simd<T, N> v) {
    return v.template select<COUNT, 1>(OFFSET);
}
/// Lanes OFFSET, OFFSET + STRIDE, …
template <int COUNT, int STRIDE, int OFFSET, class T, int N> inline esimd::simd<T, COUNT> every(esimd::simd<T, N> v) {
    return v.template select<COUNT, STRIDE>(OFFSET);
}
template <class T, int N> inline vec<T, 2 * N> join(esimd::simd<T, N> low, esimd::simd<T, N> high) {
    vec<T, 2 * N> both;
    both.template select<N, 1>(0) = low;
    both.template select<N, 1>(N) = high;
    return both;
}
template <class T, int N> inline T lane(esimd::simd<T, N> v, int index) { return v[index]; }
/// from[index] of each lane.
template <class T, int N> inline vec<T, N> gather(const T *from, vec<int, N> index) {
    return esimd::gather<typename element<T>::type, N>(reinterpret_cast<const typename element<T>::type *>(from),
                                                       vec<u32, N>(index * int(sizeof(T))));
}
/// to[index] = value, lane by lane.
template <class T, int N> inline void scatter(T *to, vec<int, N> index, vec<T, N> value) {
    esimd::scatter<typename element<T>::type, N>(reinterpret_cast<typename element<T>::type *>(to),
                                                 vec<u32, N>(index * int(sizeof(T))), value);
}
/// A hint that BYTES bytes will be loaded soon.
template <int BYTES> inline void prefetch(const void *from) {
    constexpr int PIECE = BYTES < 256 ? BYTES : 256;
#pragma unroll
    for (int at = 0; at < BYTES; at += PIECE)
        esimd::prefetch<u32, PIECE / 4>(reinterpret_cast<const u32 *>(static_cast<const u8 *>(from) + at),
                                        esimd::properties{esimd::cache_hint_L1<esimd::cache_hint::cached>,
                                                          esimd::cache_hint_L2<esimd::cache_hint::cached>});
}
/// The same where a CPU thread needs it: nothing here, many threads hide the latency of memory.
template <int BYTES> inline void stream_ahead(const void *) {}
template <int N> inline vec<int, N> iota() { return vec<int, N>(0, 1); }
inline u32 bits(mask<LANES> m) { return esimd::pack_mask(m); }

/// N values that are used one at a time, each by all lanes.
template <class T, int N> struct Uniform {
    vec<T, N> values;
    explicit inline Uniform(const T *from) : values(simd::load<T, N>(from)) {}
    inline T operator[](int index) const {
        vec<T, N> copy = values;
        return copy[index];
    }
};

/// COUNT vectors that lie one behind the other, in loads as wide as the device has them.
template <class T, int COUNT> struct Vectors {
    static constexpr int WIDE = COUNT * LANES * int(sizeof(T)) < 256 ? COUNT * LANES : 256 / int(sizeof(T));
    vec<T, COUNT * LANES> values;
    Vectors() = default;
    explicit inline Vectors(const T *from) {
#pragma unroll
        for (int i = 0; i < COUNT * LANES; i += WIDE)
            values.template select<WIDE, 1>(i) = simd::load<T, WIDE>(from + i);
    }
    inline vec<T, LANES> operator[](int index) const {
        vec<T, COUNT * LANES> copy = values;
        return copy.template select<LANES, 1>(index * LANES);
    }
};

/// The int8 codes of group `group` of an activation row of k values.
inline void store_activation_codes(u8 *row, int k, int group, vec<float, 32> codes) {
    simd::store<i8, 32>(reinterpret_cast<i8 *>(row) + 32 * group,
                        esimd::convert<i8>(vec<int, 32>(esimd::convert<int>(codes))));
}

/// Before loops over arrays that are registers on the GPU, and memory on the CPU, where unrolling costs compile time
/// alone.
#define ARCMTP_UNROLL_ON_GPU _Pragma("clang loop unroll(full)")

#define ARCMTP_KERNEL(name)                                                                                            \
    extern "C" SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((sycl::ext::oneapi::experimental::nd_range_kernel<1>))                \
        SYCL_ESIMD_KERNEL void name

template <int BYTES> inline void reserve_team_memory() { esimd::slm_init<BYTES>(); }
template <class T, int N> inline vec<T, N> team_load(int byte_offset) {
    return esimd::slm_block_load<typename element<T>::type, N>(byte_offset);
}
template <class T, int N> inline void team_store(int byte_offset, vec<T, N> value) {
    esimd::slm_block_store<typename element<T>::type, N>(byte_offset, value);
}
/// As Uniform, from team memory.
template <class T, int N> struct TeamUniform {
    vec<T, N> values;
    TeamUniform() = default;
    explicit inline TeamUniform(int byte_offset) : values(simd::team_load<T, N>(byte_offset)) {}
    inline T operator[](int index) const {
        vec<T, N> copy = values;
        return copy[index];
    }
};
template <int TEAM> inline void team_barrier() {
    if constexpr (TEAM > 1)
        esimd::barrier(); // orders team memory alone
}
/// Wait until this thread's stores to buffers are visible; its team sees them after the next barrier.
inline void fence_stores() {
    esimd::fence<esimd::memory_kind::global, esimd::fence_flush_op::none, esimd::fence_scope::gpu>();
}

/// Count arrivals of work-groups at `counter`; the previous count. What every earlier arrival stored before is visible
/// after.
inline int arrive(int *counter) {
    fence_stores();
    int before = esimd::atomic_update<esimd::atomic_op::inc, int, 1>(counter, vec<u32, 1>(0))[0];
    esimd::fence<esimd::memory_kind::global, esimd::fence_flush_op::invalidate, esimd::fence_scope::gpu>();
    return before;
}

/// Take `count` places of a list whose length is `*length`: the first of them.
inline int take_places(int *length, int count) {
    return esimd::atomic_update<esimd::atomic_op::add, int, 1>(length, vec<u32, 1>(0), vec<int, 1>(count))[0];
}

/// Sums of products of 32 (PART 0), the first 16 (1) or the last 16 (2) weights of a tile with ROWS rows of
/// activations.
template <int ROWS> struct Dots {
    vec<int, ROWS * LANES> sums;
    vec<int, LANES> operator[](int row) const {
        vec<int, ROWS * LANES> all = sums;
        return all.template select<LANES, 1>(row * LANES);
    }
};

template <int ROWS> struct Activations {
    vec<i8, ROWS * 32> codes;
    template <class ROW_POINTER> inline void load_group(ROW_POINTER row, int group) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            codes.template select<32, 1>(r * 32) = simd::load<i8, 32>(row(r) + 32 * group);
    }
    template <int PART> inline vec<i8, ROWS * 32> only() const {
        vec<i8, ROWS * 32> kept = codes;
        if constexpr (PART != 0) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                kept.template select<16, 1>(r * 32 + (PART == 1 ? 16 : 0)) = vec<i8, 16>(0);
        }
        return kept;
    }
};

template <int BITS> struct Weights {
    vec<u32, BITS * 16> words;
    inline void load_group(const u8 *codes) {
        words = simd::load<u32, BITS * 16>(reinterpret_cast<const u32 *>(codes));
    }
};

template <int PART, int BITS, int ROWS>
inline Dots<ROWS> dot(const Weights<BITS> &weights, const Activations<ROWS> &a) {
    using esimd::xmx::dpas_argument_type;
    constexpr auto width = BITS == 2   ? dpas_argument_type::u2
                           : BITS == 4 ? dpas_argument_type::u4
                                       : dpas_argument_type::u8;
    vec<u32, BITS * 16> words = weights.words;
    vec<i8, ROWS * 32> codes = a.template only<PART>();
    vec<int, ROWS * LANES> zero = 0;
    return {esimd::xmx::dpas<8, ROWS, int, int, u32, u32, width, dpas_argument_type::s8>(
        zero, words, vec<u32, ROWS * 8>(codes.template bit_cast_view<u32>()))};
}

#else // ------------------------------------------------------------------------------------------------------- CPU

template <class T> struct element {
    using type = T;
};
template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));
template <int N> using mask = vec<int, N>;

/// The nibbles of a word split into even and odd inputs, its two-bit fields into every fourth, its bytes not at all;
/// each width has its own copy of the activation codes in that order (0: 8 bit, 1: 4 bit, 2: 2 bit).
constexpr int ACTIVATION_ORDERS = 3;
template <int BITS> constexpr int activation_order() { return BITS == 8 ? 0 : BITS == 4 ? 1 : 2; }

template <class T, int N> inline vec<T, N> load(const T *from) {
    vec<T, N> value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
}
template <class T, int N> inline void store(T *to, vec<T, N> value) { __builtin_memcpy(to, &value, sizeof(value)); }

template <class To, class From, int N> inline vec<To, N> convert(From __attribute__((ext_vector_type(N))) v) {
    return __builtin_convertvector(v, vec<To, N>);
}
template <class To, class From, int N> inline auto bitcast(From __attribute__((ext_vector_type(N))) v) {
    return __builtin_bit_cast(vec<To, N *int(sizeof(From)) / int(sizeof(To))>, v);
}
template <class T, int N> inline vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
    return __builtin_elementwise_fma(a, b, c);
}
template <class T, int N> inline vec<T, N> max(T __attribute__((ext_vector_type(N))) a, vec<T, N> b) {
    return a > b ? a : b;
}
template <class T, int N> inline vec<T, N> min(T __attribute__((ext_vector_type(N))) a, vec<T, N> b) {
    return a < b ? a : b;
}
template <int N> inline vec<u32, N> multiply_high(vec<u32, N> a, vec<u32, N> b) {
    return convert<u32, u64, N>(convert<u64, u32, N>(a) * convert<u64, u32, N>(b) >> 32);
}
template <int N> inline vec<float, N> abs(float __attribute__((ext_vector_type(N))) v) {
    return __builtin_elementwise_abs(v);
}
template <int N> inline vec<float, N> rint(float __attribute__((ext_vector_type(N))) v) {
    return __builtin_elementwise_rint(v);
}
template <int N> inline vec<float, N> sqrt(float __attribute__((ext_vector_type(N))) v) {
    return __builtin_elementwise_sqrt(v);
}
template <int N> inline vec<float, N> divide(float __attribute__((ext_vector_type(N))) a, vec<float, N> b) {
    return a / b;
}
template <class T, int N> inline vec<T, N> select(mask<N> m, T __attribute__((ext_vector_type(N))) yes, vec<T, N> no) {
    return m ? yes : no;
}
template <int STRIDE, int OFFSET, class V, int... I> inline auto pick(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (OFFSET + STRIDE * I)...);
}
template <int COUNT, int OFFSET, class T, int N> inline vec<T, COUNT> part(T __attribute__((ext_vector_type(N))) v) {
    return pick<1, OFFSET>(v, std::make_integer_sequence<int, COUNT>{});
}
template <int COUNT, int STRIDE, int OFFSET, class T, int N>
inline vec<T, COUNT> every(T __attribute__((ext_vector_type(N))) v) {
    return pick<STRIDE, OFFSET>(v, std::make_integer_sequence<int, COUNT>{});
}
template <class V, int... I> inline auto concatenate(V low, V high, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(low, high, I...);
}
template <class T, int N> inline vec<T, 2 * N> join(T __attribute__((ext_vector_type(N))) low, vec<T, N> high) {
    return concatenate(low, high, std::make_integer_sequence<int, 2 * N>{});
}
template <class T, int N> inline T lane(T __attribute__((ext_vector_type(N))) v, int index) { return v[index]; }
template <class T, int N> inline vec<T, N> gather(const T *from, vec<int, N> index) {
    vec<T, N> v;
    for (int i = 0; i < N; ++i)
        v[i] = from[index[i]];
    return v;
}
template <class T, int N> inline void scatter(T *to, vec<int, N> index, vec<T, N> value) {
    for (int i = 0; i < N; ++i)
        to[index[i]] = value[i];
}
template <int BYTES> inline void prefetch(const void *from) {
    for (int at = 0; at < BYTES; at += 64)
        asm volatile("prefetcht1 (%0)" : : "r"(static_cast<const u8 *>(from) + at));
}
template <int BYTES> inline void stream_ahead(const void *from) { simd::prefetch<BYTES>(from); }
template <int N> inline vec<int, N> iota() {
    vec<int, N> v;
    for (int i = 0; i < N; ++i)
        v[i] = i;
    return v;
}
inline u32 bits(mask<LANES> m) {
    u32 all = 0;
    for (int i = 0; i < LANES; ++i)
        all |= u32(m[i] & 1) << i;
    return all;
}

template <class T, int N> struct Uniform {
    const T *values;
    explicit inline Uniform(const T *from) : values(from) {}
    inline T operator[](int index) const { return values[index]; }
};

template <class T, int COUNT> struct Vectors {
    const T *from;
    Vectors() = default;
    explicit inline Vectors(const T *from) : from(from) {}
    inline vec<T, LANES> operator[](int index) const { return simd::load<T, LANES>(from + index * LANES); }
};

inline void store_activation_codes(u8 *row, int k, int group, vec<float, 32> codes) {
    const vec<i8, 32> c = simd::convert<i8, int, 32>(simd::convert<int, float, 32>(codes));
    i8 *to = reinterpret_cast<i8 *>(row) + 32 * group;
    simd::store<i8, 32>(to, c);
    simd::store<i8, 32>(to + k, __builtin_shufflevector(c, c, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 16,
                                                        18, 20, 22, 17, 19, 21, 23, 24, 26, 28, 30, 25, 27, 29, 31));
    simd::store<i8, 32>(to + 2 * k,
                        __builtin_shufflevector(c, c, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 16, 20, 24,
                                                28, 17, 21, 25, 29, 18, 22, 26, 30, 19, 23, 27, 31));
}

#define ARCMTP_UNROLL_ON_GPU

#define ARCMTP_KERNEL(name)                                                                                            \
    extern "C" SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((sycl::ext::oneapi::experimental::nd_range_kernel<1>)) void name

#ifndef ARCMTP_TEAM_MEMORY
#define ARCMTP_TEAM_MEMORY 64
#endif
inline sycl::ext::oneapi::experimental::work_group_static<char[ARCMTP_TEAM_MEMORY]> team_memory;

template <int BYTES> inline void reserve_team_memory() {
    static_assert(BYTES <= ARCMTP_TEAM_MEMORY,
                  "ARCMTP_TEAM_MEMORY is the largest that a kernel of this source reserves");
}
template <class T, int N> inline vec<T, N> team_load(int byte_offset) {
    return load<T, N>(reinterpret_cast<const T *>(&team_memory[byte_offset]));
}
template <class T, int N> inline void team_store(int byte_offset, vec<T, N> value) {
    store<T, N>(reinterpret_cast<T *>(&team_memory[byte_offset]), value);
}
template <class T, int N> struct TeamUniform {
    int byte_offset;
    TeamUniform() = default;
    explicit inline TeamUniform(int byte_offset) : byte_offset(byte_offset) {}
    inline T operator[](int index) const {
        return *reinterpret_cast<const T *>(&team_memory[byte_offset + index * int(sizeof(T))]);
    }
};
template <int TEAM> inline void team_barrier() {
    if constexpr (TEAM > 1)
        sycl::group_barrier(sycl::ext::oneapi::this_work_item::get_work_group<1>());
}
inline void fence_stores() {} // its team sees them after the next barrier, other work-groups after arrive()

inline int arrive(int *counter) {
    return sycl::atomic_ref<int, sycl::memory_order::acq_rel, sycl::memory_scope::device,
                            sycl::access::address_space::global_space>(*counter)
        .fetch_add(1);
}
inline int take_places(int *length, int count) {
    return sycl::atomic_ref<int, sycl::memory_order::relaxed, sycl::memory_scope::device,
                            sycl::access::address_space::global_space>(*length)
        .fetch_add(count);
}

/// acc + the four u8 * s8 products of each lane.
inline vec<int, LANES> dot_bytes(vec<int, LANES> acc, vec<u32, LANES> unsigned_bytes, int signed_bytes) {
#ifdef ARCMTP_VNNI
    vec<int, LANES> sum, broadcast = signed_bytes;
    // The three-operand form: with a read-write constraint the compiler returned another register's content.
    asm("vpdpbusd %2, %1, %0" : "=v"(sum) : "v"(unsigned_bytes), "v"(broadcast), "0"(acc));
    return sum;
#else
    using short32 = vec<short, 2 * LANES>;
    const int even = (signed_bytes << 24 >> 24 & 0xffff) | (signed_bytes << 8 >> 24 << 16);
    const int odd = (signed_bytes << 16 >> 24 & 0xffff) | (signed_bytes >> 24 << 16);
    auto add_pairs = [](vec<int, LANES> sum, vec<u32, LANES> weights, int pair) {
        short32 w = bitcast<short>(weights), a = bitcast<short>(vec<int, LANES>(pair));
        auto evens = [](short32 v) {
            return convert<int>(
                __builtin_shufflevector(v, v, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
        };
        auto odds = [](short32 v) {
            return convert<int>(
                __builtin_shufflevector(v, v, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
        };
        return sum + (evens(w) * evens(a) + odds(w) * odds(a));
    };
    return add_pairs(add_pairs(acc, unsigned_bytes & 0x00ff00ffu, even), unsigned_bytes >> 8 & 0x00ff00ffu, odd);
#endif
}

template <int ROWS> struct Dots {
    vec<int, LANES> sums[ROWS];
    vec<int, LANES> operator[](int row) const { return sums[row]; }
};

template <int ROWS> struct Activations {
    const int *words[ROWS];
    template <class ROW_POINTER> inline void load_group(ROW_POINTER row, int group) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            words[r] = reinterpret_cast<const int *>(row(r) + 32 * group);
    }
};

template <int BITS> struct Weights {
    const u32 *words;
    inline void load_group(const u8 *codes) { words = reinterpret_cast<const u32 *>(codes); }
};

template <int PART, int BITS, int ROWS>
inline Dots<ROWS> dot(const Weights<BITS> &weights, const Activations<ROWS> &a) {
    constexpr int fields = 8 / BITS; // unpacked words per stored word
    constexpr u32 field_mask = BITS == 8 ? 0xffffffffu : BITS == 4 ? 0x0f0f0f0fu : 0x03030303u;
    constexpr int first = PART == 2 ? BITS / 2 : 0; // a tile has BITS registers of words
    constexpr int last = PART == 1 ? BITS / 2 : BITS;
    Dots<ROWS> dots;
    vec<int, LANES> odd[ROWS]; // two chains: an instruction takes five cycles, and two can begin in each
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
        dots.sums[r] = odd[r] = 0;
#pragma unroll
    for (int w = first; w < last; ++w) {
        const vec<u32, LANES> packed = load<u32, LANES>(weights.words + w * LANES);
#pragma unroll
        for (int f = 0; f < fields; ++f) {
            const vec<u32, LANES> bytes = packed >> u32(f * BITS) & field_mask;
            const int word = w * fields + f;
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                (word % 2 ? odd : dots.sums)[r] = dot_bytes((word % 2 ? odd : dots.sums)[r], bytes, a.words[r][word]);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
        dots.sums[r] += odd[r];
    return dots;
}

#endif // ------------------------------------------------------------------------------------------- for both devices

inline int group_index() { return int(sycl::ext::oneapi::this_work_item::get_nd_item<1>().get_group_linear_id()); }
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
