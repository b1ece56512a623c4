// The GPU's body of simd.hpp: ESIMD, whose vectors are registers.
#pragma once

#include <sycl/ext/intel/esimd.hpp>
#include <sycl/ext/intel/experimental/esimd/math.hpp>
#include <sycl/ext/intel/experimental/grf_size_properties.hpp>

namespace simd {

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
/// What / is not here: that multiplies by an approximate reciprocal, by a rounded one where the divisor is a constant.
inline float divide(float a, float b) { return esimd::div_ieee(a, b); }
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
constexpr int power_of_two_within(int n) { return n < 2 ? n : 2 * power_of_two_within(n / 2); }
/// A hint that BYTES bytes, whole words, will be loaded soon. A load has a power of two; what is left over is not asked
/// for.
template <int BYTES> inline void prefetch(const void *from) {
    constexpr int PIECE = power_of_two_within(BYTES < 256 ? BYTES : 256);
#pragma unroll
    for (int at = 0; at + PIECE <= BYTES; at += PIECE)
        esimd::prefetch<u32, PIECE / 4>(reinterpret_cast<const u32 *>(static_cast<const u8 *>(from) + at),
                                        esimd::properties{esimd::cache_hint_L1<esimd::cache_hint::cached>,
                                                          esimd::cache_hint_L2<esimd::cache_hint::cached>});
}
/// The same of a power of two of bytes, into the cache that all cores share, where they outlast the launch.
template <int BYTES> inline void prefetch_shared(const void *from) {
    esimd::prefetch<u32, BYTES / 4>(static_cast<const u32 *>(from),
                                    esimd::properties{esimd::cache_hint_L1<esimd::cache_hint::uncached>,
                                                      esimd::cache_hint_L2<esimd::cache_hint::cached>});
}
/// A hint where a CPU thread needs it: nothing here, many threads hide the latency of memory.
template <int BYTES> inline void stream_ahead(const void *) {}
template <int N> inline vec<int, N> iota() { return vec<int, N>(0, 1); }
template <int N> inline u32 bits(mask<N> m) { return esimd::pack_mask(m); }

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
    template <int N> inline vec<T, N * LANES> together(int index) const {
        vec<T, COUNT * LANES> copy = values;
        return copy.template select<N * LANES, 1>(index * LANES);
    }
};
/// Inputs of a row that are loaded together where many follow each other.
constexpr int INPUTS = 32;

/// Whether a thread's loads should stand together, before what waits for the first of them.
constexpr bool LOADS_FIRST = true;
/// Vectors of codes that are decoded together: of 16 lanes an instruction would use half of what it can.
constexpr int DECODED = 4;

/// The int8 codes of group `group` of an activation row of k values.
inline void store_activation_codes(u8 *row, int k, int group, vec<float, 32> codes) {
    simd::store<i8, 32>(reinterpret_cast<i8 *>(row) + 32 * group,
                        esimd::convert<i8>(vec<int, 32>(esimd::convert<int>(codes))));
}

/// Before loops over arrays that are registers on the GPU, and memory on the CPU, where unrolling costs compile time
/// alone.
#define ARCMTP_UNROLL_ON_GPU _Pragma("clang loop unroll(full)")

#define ARCMTP_OUTLINE_ON_CPU inline

#define ARCMTP_KERNEL(name)                                                                                            \
    extern "C" SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((sycl::ext::oneapi::experimental::nd_range_kernel<1>))                \
        SYCL_ESIMD_KERNEL void name

/// A kernel whose threads have 256 registers instead of 128, half as many threads at a time.
#define ARCMTP_KERNEL_256(name)                                                                                        \
    extern "C" SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((sycl::ext::oneapi::experimental::nd_range_kernel<1>))                \
        SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((sycl::ext::intel::experimental::grf_size<256>)) SYCL_ESIMD_KERNEL void name

template <int BYTES> inline void reserve_team_memory() { esimd::slm_init<BYTES>(); }
template <class T, int N> inline vec<T, N> team_load(int byte_offset) {
    return esimd::slm_block_load<typename element<T>::type, N>(byte_offset);
}
template <class T, int N> inline void team_store(int byte_offset, vec<T, N> value) {
    esimd::slm_block_store<typename element<T>::type, N>(byte_offset, value);
}
/// Each lane of `where` at its own byte.
template <class T, int N> inline void team_scatter(vec<int, N> byte_offsets, vec<T, N> value, mask<N> where) {
    esimd::slm_scatter<typename element<T>::type, N>(vec<u32, N>(byte_offsets), value, where);
}
/// As Uniform, from team memory.
template <class T, int N> struct TeamUniform {
    vec<T, N> values;
    TeamUniform() = default;
    explicit inline TeamUniform(int byte_offset) { load<0>(byte_offset); }
    inline T operator[](int index) const {
        vec<T, N> copy = values;
        return copy[index];
    }

  private:
    /// A message has a power of two.
    template <int FIRST> inline void load(int byte_offset) {
        constexpr int COUNT = power_of_two_within(N - FIRST);
        values.template select<COUNT, 1>(FIRST) = simd::team_load<T, COUNT>(byte_offset + FIRST * int(sizeof(T)));
        if constexpr (FIRST + COUNT < N)
            load<FIRST + COUNT>(byte_offset);
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
/// activations, added to `start`.
template <int ROWS> struct Dots {
    vec<int, ROWS * LANES> sums;
    vec<int, LANES> operator[](int row) const {
        vec<int, ROWS * LANES> all = sums;
        return all.template select<LANES, 1>(row * LANES);
    }
    inline void add(const Dots &other, int factor) { sums += other.sums * factor; }
};

template <int ROWS> struct Activations {
    vec<i8, ROWS * 32> codes;
    template <class ROW_POINTER> inline void load_group(ROW_POINTER row, int group) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            codes.template select<32, 1>(r * 32) = simd::load<i8, 32>(row(r) + 32 * group);
    }
    /// 32 codes of each row from team memory, where TOGETHER rows lie one behind the other.
    template <int TOGETHER, class BYTE_OFFSET> inline void team_load(BYTE_OFFSET row) {
#pragma unroll
        for (int r = 0; r < ROWS; r += TOGETHER) {
            const TeamUniform<u32, TOGETHER * 8> words(row(r));
            codes.template select<TOGETHER * 32, 1>(r * 32) = simd::bitcast<i8, u32, TOGETHER * 8>(words.values);
        }
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

/// The boolean function TRUTH of each bit of three words: its value for bits a, b, c is bit a + 2 b + 4 c of TRUTH.
template <u32 TRUTH> inline vec<u32, 64> function_of(vec<u32, 64> a, vec<u32, 64> b, vec<u32, 64> c) {
    if constexpr (TRUTH == 0xaa)
        return a;
    else if constexpr (TRUTH == 0xcc)
        return b;
    else if constexpr (TRUTH == 0xf0)
        return c;
    else
        return esimd::bfn<esimd::bfn_t(TRUTH)>(a, b, c);
}

/// Codes that are places in LEVELS, 3 or 4 bits each: their levels, in one or two planes of 4 bits, which lie as 4-bit
/// weights do. There is no table: each bit of a level is a boolean function of the bits of its code, and one operation
/// computes it for the four codes of each lane's word that it needs, 128 in all.
template <class LEVELS, int BITS> struct LevelPlanes {
    using Words = vec<u32, 64>;
    Words code[BITS]; // bit b of the code that begins at bit 4 i of a word is in bit 4 i of code[b]

    explicit inline LevelPlanes(const vec<u32, BITS * 16> &words) {
        if constexpr (BITS == 4) {
#pragma unroll
            for (int b = 0; b < 4; ++b)
                code[b] = words >> u32(b);
        } else {
            vec<u32, BITS * 16> planes = words;
#pragma unroll
            for (int b = 0; b < BITS; ++b)
#pragma unroll
                for (int r = 0; r < 4; ++r)
                    code[b].template select<LANES, 1>(r * LANES) =
                        planes.template select<LANES, 1>(b * LANES) >> u32(r);
        }
    }

    /// Bits FIRST … FIRST + 3 of the levels.
    template <int FIRST> inline Words plane() const {
        constexpr int bits = LEVELS::bits() - FIRST < 4 ? LEVELS::bits() - FIRST : 4;
        if constexpr (bits == 1)
            return bit<FIRST>() & 0x11111111u;
        else if constexpr (bits == 2)
            return pair<FIRST>() & 0x33333333u;
        else if constexpr (bits == 3)
            return (pair<FIRST>() & 0x33333333u) | (bit<FIRST + 2>() << 2u & 0x44444444u);
        else
            return either(pair<FIRST>(), pair<FIRST + 2>() << 2u, 0xccccccccu);
    }

  private:
    /// In bit 4 i of each word; what the other bits hold means nothing.
    template <int BIT> inline Words bit() const {
        constexpr u32 truth = LEVELS::truth(BIT), low = truth & 0xff, high = BITS == 4 ? truth >> 8 : low;
        const Words of_low = function_of<low>(code[0], code[1], code[2]);
        if constexpr (low == high)
            return of_low;
        else
            return function_of<0xca>(of_low, function_of<high>(code[0], code[1], code[2]), code[BITS - 1]);
    }
    template <int BIT> inline Words pair() const { return either(bit<BIT>(), bit<BIT + 1>() << 1u, 0x22222222u); }
    static inline Words either(Words no, Words yes, u32 where) { return function_of<0xca>(no, yes, Words(where)); }
};

struct ByteTile {
    vec<u32, 8 * LANES> words;
    template <int N> inline void set(int index, vec<u32, N * LANES> v) {
        words.template select<N * LANES, 1>(index * LANES) = v;
    }
    inline Weights<8> weights() const { return {words}; }
};
/// Each bit of `yes` where that of `where` is 1, of `no` where it is 0.
template <int N>
inline esimd::simd<u32, N> choose_bits(esimd::simd<u32, N> where, esimd::simd<u32, N> yes, esimd::simd<u32, N> no) {
    return esimd::bfn<esimd::bfn_t(0xca)>(no, yes, where);
}
/// Registers can be looked up in by one lane at a time only.
constexpr bool LOOKS_UP_BYTES = false;
template <int N> vec<u32, N> look_up_bytes(esimd::simd<u32, N> index, u32 a, u32 b, u32 c, u32 d); // never called

template <int PART, int BITS, int ROWS>
inline Dots<ROWS> dot(const Weights<BITS> &weights, const Activations<ROWS> &a, const vec<int, LANES> (&start)[ROWS]) {
    using esimd::xmx::dpas_argument_type;
    constexpr auto width = BITS == 2   ? dpas_argument_type::u2
                           : BITS == 4 ? dpas_argument_type::u4
                                       : dpas_argument_type::u8;
    vec<u32, BITS * 16> words = weights.words;
    vec<i8, ROWS * 32> codes = a.template only<PART>();
    vec<int, ROWS * LANES> sums;
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
        sums.template select<LANES, 1>(r * LANES) = start[r];
    return {esimd::xmx::dpas<8, ROWS, int, int, u32, u32, width, dpas_argument_type::s8>(
        sums, words, vec<u32, ROWS * 8>(codes.template bit_cast_view<u32>()))};
}

/// Whether codes c of BITS bits that mean c - 2^(BITS - 1) can be taken as weights with a sign.
constexpr bool SIGNED_WEIGHTS = true;
/// The same of these weights, with nothing to start from.
template <int PART, int BITS> inline Dots<8> dot_signed(const Weights<BITS> &weights, const Activations<8> &a) {
    using esimd::xmx::dpas_argument_type;
    constexpr auto byte = dpas_argument_type::s8, width = BITS == 4 ? dpas_argument_type::s4 : byte;
    const vec<u32, BITS * 16> words = weights.words ^ (BITS == 4 ? 0x88888888u : 0x80808080u);
    vec<i8, 8 * 32> codes = a.template only<PART>();
    return {esimd::xmx::dpas<8, 8, int, u32, u32, width, byte>(words,
                                                               vec<u32, 8 * 8>(codes.template bit_cast_view<u32>()))};
}

/// The same as dot of weights whose codes are places in LEVELS.
template <class LEVELS, int PART, int BITS, int ROWS>
inline Dots<ROWS> dot_levels(const Weights<BITS> &weights, const Activations<ROWS> &a,
                             const vec<int, LANES> (&start)[ROWS]) {
    const LevelPlanes<LEVELS, BITS> levels(weights.words);
    Dots<ROWS> dots = dot<PART>(Weights<4>{levels.template plane<0>()}, a, start);
    if constexpr (LEVELS::bits() > 4) {
        vec<int, LANES> zero[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            zero[r] = 0;
        dots.sums += dot<PART>(Weights<4>{levels.template plane<4>()}, a, zero).sums * 16;
    }
    return dots;
}

} // namespace simd
