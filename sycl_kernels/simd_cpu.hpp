// The CPU's body of simd.hpp: vector types, and VNNI assembly where the driver runs it (ARCMTP_VNNI).
#pragma once

namespace simd {

template <class T> struct element {
    using type = T;
};
template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));
template <int N> using mask = vec<int, N>;

/// The nibbles of a word split into even and odd inputs, its two-bit fields into every fourth, its bytes not at all;
/// each width has its own copy of the activation codes in that order (0: 8 bit, 1: 4 and 3 bit, 2: 2 bit).
constexpr int ACTIVATION_ORDERS = 3;
template <int BITS> constexpr int activation_order() { return BITS == 8 ? 0 : BITS == 2 ? 2 : 1; }

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
inline float divide(float a, float b) { return a / b; }
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
        asm volatile("prefetcht0 (%0)" : : "r"(static_cast<const u8 *>(from) + at));
}
/// The same into the cache that all cores share.
template <int BYTES> inline void prefetch_shared(const void *from) { prefetch<BYTES>(from); }
#ifdef ARCMTP_INTEL_CPU
#define ARCMTP_STREAM "prefetcht1"
#else
#define ARCMTP_STREAM "prefetchnta"
#endif
/// The same for what is read once and soon: into the nearest cache alone (decoding × 1.04), but on Intel's CPUs into
/// the second one (× 1.57: docs/log.md).
template <int BYTES, int AT = 0> inline void stream_ahead(const void *from) {
    asm volatile(ARCMTP_STREAM " %c1(%0)" : : "r"(from), "i"(AT));
    if constexpr (AT + 64 < BYTES)
        stream_ahead<BYTES, AT + 64>(from);
}
template <int N> inline vec<int, N> iota() {
    vec<int, N> v;
    for (int i = 0; i < N; ++i)
        v[i] = i;
    return v;
}
template <int N> inline u32 bits(mask<N> m) {
    u32 all = 0;
    for (int i = 0; i < N; ++i)
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
    template <int N> inline vec<T, N * LANES> together(int index) const {
        return simd::load<T, N * LANES>(from + index * LANES);
    }
};
constexpr int INPUTS = 16; // of a row that are loaded together

constexpr bool LOADS_FIRST = false; // a core looks ahead
constexpr int DECODED = 1;          // vectors of codes that are decoded together

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

// Unrolled, loops over what a GPU holds in registers spilled all of it here (docs/log.md).
#define ARCMTP_UNROLL_ON_GPU _Pragma("clang loop unroll(disable)")

/// Before a function that compiles for seconds where it is inlined into loops.
#define ARCMTP_OUTLINE_ON_CPU __attribute__((noinline))

#define ARCMTP_KERNEL(name)                                                                                            \
    extern "C" SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((sycl::ext::oneapi::experimental::nd_range_kernel<1>)) void name
#define ARCMTP_KERNEL_256(name) ARCMTP_KERNEL(name)

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
template <class T, int N> inline void team_scatter(vec<int, N> byte_offsets, vec<T, N> value, mask<N> where) {
    for (int i = 0; i < N; ++i)
        if (where[i])
            store<T, 1>(reinterpret_cast<T *>(&team_memory[byte_offsets[i]]), vec<T, 1>(value[i]));
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

/// acc + the four products of each lane's u8 with the s8 of signed_words[WORD].
template <int WORD>
inline vec<int, LANES> dot_bytes(vec<int, LANES> acc, vec<u32, LANES> unsigned_bytes, const int *signed_words) {
#ifdef ARCMTP_VNNI
    vec<int, LANES> sum;
    // The three-operand form: with a read-write constraint the compiler returned another register's content. It does
    // not know that memory is read: no kernel writes what it multiplies by. ("m" does not reach this compiler.)
    asm("vpdpbusd %c3(%2)%{1to16%}, %1, %0"
        : "=v"(sum)
        : "v"(unsigned_bytes), "r"(signed_words), "i"(4 * WORD), "0"(acc));
    return sum;
#else
    const int signed_bytes = signed_words[WORD];
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
    inline void add(const Dots &other, int factor) {
        for (int r = 0; r < ROWS; ++r)
            sums[r] += other.sums[r] * factor;
    }
};

template <int ROWS> struct Activations {
    const int *words[ROWS];
    template <class ROW_POINTER> inline void load_group(ROW_POINTER row, int group) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            words[r] = reinterpret_cast<const int *>(row(r) + 32 * group);
    }
    /// 32 codes of each row from team memory.
    template <int TOGETHER, class BYTE_OFFSET> inline void team_load(BYTE_OFFSET row) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            words[r] = reinterpret_cast<const int *>(&team_memory[row(r)]);
    }
};

template <int BITS> struct Weights {
    const u32 *words;
    inline void load_group(const u8 *codes) { words = reinterpret_cast<const u32 *>(codes); }
};

/// In each byte the level of its code, of those from FIRST on: halves chosen by one bit of the code after the other.
template <class LEVELS, int BIT, int FIRST = 0> inline vec<u32, LANES> choose_level(vec<u32, LANES> codes) {
    if constexpr (BIT == 0) {
        constexpr u32 level = LEVELS::level(FIRST) * 0x01010101u;
        return vec<u32, LANES>(level);
    } else {
        const vec<u32, LANES> bit = codes / u32(BIT) & 0x01010101u, chosen = (bit << 8u) - bit;
        const vec<u32, LANES> low = choose_level<LEVELS, BIT / 2, FIRST>(codes);
        return low ^ (chosen & (low ^ choose_level<LEVELS, BIT / 2, FIRST + BIT>(codes)));
    }
}

/// Eight vectors of words that are made, not loaded, and weights of 8 bits then.
struct ByteTile {
    vec<u32, LANES> words[8];
    template <int N> inline void set(int index, vec<u32, LANES> v) { words[index] = v; }
    inline Weights<8> weights() const { return {reinterpret_cast<const u32 *>(words)}; }
};

/// Whether look_up_bytes is an instruction.
#ifdef ARCMTP_VNNI
constexpr bool LOOKS_UP_BYTES = true;
#else
constexpr bool LOOKS_UP_BYTES = false;
#endif
/// Each bit of `yes` where that of `where` is 1, of `no` where it is 0.
inline vec<u32, LANES> choose_bits(vec<u32, LANES> where, vec<u32, LANES> yes, vec<u32, LANES> no) {
    return no ^ (where & (yes ^ no));
}
/// Each byte of `index`, 0 … 15, replaced by a byte of the words a, b, c, d.
inline vec<u32, LANES> look_up_bytes(vec<u32, LANES> index, u32 a, u32 b, u32 c, u32 d) {
    const vec<u32, LANES> table = {a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d};
    vec<u32, LANES> found;
    asm("vpshufb %2, %1, %0" : "=v"(found) : "v"(table), "v"(index));
    return found;
}

/// body(FIRST) … body(LAST - 1), with each number as a constant's type.
template <int FIRST, int LAST, class BODY> inline void each(const BODY &body) {
    if constexpr (FIRST < LAST) {
        body(std::integral_constant<int, FIRST>{});
        each<FIRST + 1, LAST>(body);
    }
}

template <int PART, int BITS, int ROWS>
inline Dots<ROWS> dot(const Weights<BITS> &weights, const Activations<ROWS> &a, const vec<int, LANES> (&start)[ROWS]) {
    constexpr int fields = 8 / BITS; // of a byte
    constexpr u32 lowest = BITS == 8 ? 0xffffffffu : BITS == 4 ? 0x0f0f0f0fu : 0x03030303u;
    constexpr int first = PART == 2 ? BITS / 2 : 0; // a tile has BITS registers of words
    constexpr int last = PART == 1 ? BITS / 2 : BITS;
    constexpr int chains = fields == 1 ? 1 : 2;
    vec<int, LANES> sums[chains][ROWS]; // odd fields are left where they lie in the byte: their sum is shifted
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        sums[0][r] = start[r];
        if constexpr (chains == 2)
            sums[1][r] = 0;
    }
    each<first, last>([&](auto w) {
        const vec<u32, LANES> packed = load<u32, LANES>(weights.words + w * LANES);
        each<0, fields>([&](auto f) {
            const vec<u32, LANES> bytes = packed >> u32(f / 2 * 2 * BITS) & lowest << f % 2 * BITS;
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                sums[f % 2][r] = dot_bytes<w * fields + f>(sums[f % 2][r], bytes, a.words[r]);
        });
    });
    Dots<ROWS> dots;
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
        dots.sums[r] = chains == 2 ? sums[0][r] + (sums[chains - 1][r] >> BITS) : sums[0][r];
    return dots;
}

constexpr bool SIGNED_WEIGHTS = false;
template <int PART, int BITS> Dots<8> dot_signed(const Weights<BITS> &, const Activations<8> &); // never called

/// The levels of each byte's code, 0 … LEVELS::COUNT - 1. (The table is made of constants by name: what the driver's
/// compiler had to evaluate took 12 times as long as the whole product.)
template <class LEVELS> inline vec<u32, LANES> look_up(vec<u32, LANES> codes) {
#ifdef ARCMTP_VNNI
    constexpr u32 a = LEVELS::word(0), b = LEVELS::word(1), c = LEVELS::word(2), d = LEVELS::word(3);
    const vec<u32, LANES> table = {a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d}; // one for each 16 of the bytes
    vec<u32, LANES> levels;
    asm("vpshufb %2, %1, %0" : "=v"(levels) : "v"(table), "v"(codes));
    return levels;
#else
    return choose_level<LEVELS, LEVELS::COUNT / 2>(codes);
#endif
}

/// The words of codes number FIELD of a group, one in each byte: what meets word FIELD of the activations.
template <int FIELD, int BITS> inline vec<u32, LANES> field_codes(const Weights<BITS> &weights) {
    if constexpr (BITS == 4)
        return load<u32, LANES>(weights.words + FIELD / 2 * LANES) >> u32(FIELD % 2 * 4) & 0x0f0f0f0fu;
    else {
        constexpr int AT = FIELD % 2 * 4 + FIELD / 2; // in each byte of a plane
        vec<u32, LANES> codes = 0u;
        each<0, BITS>([&](auto bit) {
            const vec<u32, LANES> plane = load<u32, LANES>(weights.words + bit * LANES);
            const vec<u32, LANES> moved = AT >= bit ? plane >> u32(AT - bit) : plane << u32(bit - AT);
            codes |= moved & 0x01010101u << bit;
        });
        return codes;
    }
}

template <class LEVELS, int PART, int BITS, int ROWS>
inline Dots<ROWS> dot_levels(const Weights<BITS> &weights, const Activations<ROWS> &a,
                             const vec<int, LANES> (&start)[ROWS]) {
    vec<int, LANES> sums[2][ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        sums[0][r] = start[r];
        sums[1][r] = 0;
    }
    each<PART == 2 ? 4 : 0, PART == 1 ? 4 : 8>([&](auto field) {
        const vec<u32, LANES> levels = look_up<LEVELS>(field_codes<field>(weights));
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            sums[field % 2][r] = dot_bytes<field>(sums[field % 2][r], levels, a.words[r]);
    });
    Dots<ROWS> dots;
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
        dots.sums[r] = sums[0][r] + sums[1][r];
    return dots;
}

} // namespace simd
