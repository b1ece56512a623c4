// How a KV cache holds keys and values: as halves, or rotated and as small integers, in blocks with a scale each. The
// twin is arcmtp/formats/kv_cache.py.
//
// 16 positions of a head are a tile. A tile of integers has 16 x 16 bytes for each 16 dimensions (a matrix), then the
// scales, half [blocks][16 positions]. A matrix is four vectors of words: of keys a lane is a position and the 16 bytes
// of its words are dimensions, of values a lane is a dimension and the bytes are positions. So products sum over
// dimensions there and over positions here, and the CPU's dots and dpas take the same words. Codes of less than a byte
// share bytes with other dimensions of their position, never with another position.
#pragma once

#include "hadamard.hpp"

namespace arcmtp {

inline vec<half, LANES> to_half(Lanes v) { return simd::convert<typename simd::element<half>::type, float, LANES>(v); }
inline Lanes to_float(vec<half, LANES> v) { return simd::convert<float, typename simd::element<half>::type, LANES>(v); }

/// A key's dimensions are 16 elements apart, a value's lie together.
struct KvF16 {
    using Element = half;
    static constexpr bool CODED = false;
    static constexpr int ELEMENT_BYTES = 2;
    /// COUNT vectors of 16 elements that lie together.
    template <int COUNT> using Loaded = simd::Vectors<half, COUNT>;
    static inline Lanes decode(vec<half, LANES> v) { return to_float(v); }
};

/// A value is (byte - 128) * scale; scale = largest / 127 of a block.
struct KvQ8 {
    using Element = u8;
    static constexpr bool CODED = true;
    static constexpr int ELEMENT_BYTES = 1, DIMENSIONS = 32, LARGEST_BLOCK = 32, LARGEST_ROTATION = 256;
    static constexpr float SMALLEST = 1e-8f; // a scale that is not 0 is more
    static constexpr int code_bytes(int head_dim) { return head_dim * LANES; }

    /// The four vectors of COUNT matrices from m on, as bytes value + 128, to vectors first … of `tile`; two begin with
    /// an even one.
    template <int HEAD_DIM, int COUNT>
    static inline void load(const u8 *codes, int m, simd::ByteTile &tile, int first) {
        using simd::DECODED;
#pragma clang loop unroll(full)
        for (int i = 0; i < COUNT; ++i) {
            const simd::Vectors<simd::u32, 4> words(reinterpret_cast<const simd::u32 *>(codes + (m + i) * 256));
#pragma clang loop unroll(full)
            for (int w = 0; w < 4; w += DECODED)
                tile.set<DECODED>(first + 4 * i + w, words.template together<DECODED>(w));
        }
    }

    /// The codes of a block, and its scale.
    template <int N> static inline Lanes encode(const Lanes *x, vec<int, LANES> *codes) {
        Lanes most = 0.0f, lost = 0.0f; // NaN, if any value is
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < N; ++i) {
            most = simd::max<float, LANES>(most, Lanes(simd::abs<LANES>(x[i])));
            lost = lost + Lanes(x[i] * 0.0f);
        }
        const Lanes exact =
            simd::divide<LANES>(Lanes(simd::largest<float, LANES>(most)), Lanes(127.0f)) + simd::sum<LANES>(lost);
        const Lanes scale = to_float(to_half(exact));
        const Lanes inverse = simd::divide<LANES>(Lanes(1.0f), simd::max<float, LANES>(scale, Lanes(SMALLEST)));
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < N; ++i) {
            const Lanes code = simd::rint<LANES>(Lanes(x[i] * inverse));
            const Lanes limited = simd::min<float, LANES>(simd::max<float, LANES>(code, Lanes(-127.0f)), Lanes(127.0f));
            codes[i] = simd::convert<int, float, LANES>(limited) + 128;
        }
        return scale;
    }

    /// put(first byte of a matrix, a byte for each lane) for all bytes of a position.
    template <int MATRICES, class PUT> static inline void pack(const vec<int, LANES> *codes, const PUT &put) {
        ARCMTP_UNROLL_ON_GPU
        for (int m = 0; m < MATRICES; ++m)
            put(m * 256, codes[m]);
    }
};

/// A code is the level of a magnitude and, in its highest bit, a sign: the centroids of normally distributed values, in
/// integers. The scale of a block gives the reconstruction the block's norm.
template <class CENTROIDS> struct KvTurbo {
    using Element = u8;
    static constexpr bool CODED = true;
    static constexpr int ELEMENT_BYTES = 1, LARGEST_BLOCK = 128, LARGEST_ROTATION = 128;
    static constexpr int BITS = CENTROIDS::BITS, LEVELS = 1 << (BITS - 1);
    static constexpr int DIMENSIONS = BITS == 4 ? 32 : 64; // whose codes fill bytes
    static constexpr int low_bytes(int head_dim) { return BITS == 4 ? head_dim * 8 : head_dim * 4; }
    static constexpr int code_bytes(int head_dim) {
        return low_bytes(head_dim) + (BITS == 4 ? 0 : (head_dim + 127) / 128 * 256);
    }

    /// As KvQ8's. With 4 bits two matrices share bytes. With 3 bits four share the bytes of their levels, eight those
    /// of their signs.
    template <int HEAD_DIM, int COUNT>
    static inline void load(const u8 *codes, int m, simd::ByteTile &tile, int first) {
        using simd::DECODED;
        using Words = vec<simd::u32, DECODED * LANES>;
        constexpr int SHARE = BITS == 4 ? 2 : 4;
        const simd::Vectors<simd::u32, 4> low(reinterpret_cast<const simd::u32 *>(codes + m / SHARE * 256));
        simd::Vectors<simd::u32, 4> high;
        if constexpr (BITS == 3)
            high = simd::Vectors<simd::u32, 4>(
                reinterpret_cast<const simd::u32 *>(codes + low_bytes(HEAD_DIM) + m / 8 * 256));
#pragma clang loop unroll(full)
        for (int at = 0; at < 4 * COUNT; at += DECODED) {
            const int w = at % 4, i = at / 4;
            const Words shifted = low.template together<DECODED>(w) >> simd::u32((m % SHARE + i) * (8 / SHARE));
            if constexpr (BITS == 4)
                tile.set<DECODED>(first + at, look_up(shifted));
            else {
                const Words signs = high.template together<DECODED>(w) >> simd::u32(m % 8 + i);
                tile.set<DECODED>(first + at,
                                  look_up(simd::choose_bits(Words(0x03030303u), shifted, Words(signs << 2u))));
            }
        }
    }

    template <int N> static inline Lanes encode(const Lanes *x, vec<int, LANES> *codes) {
        Lanes squares = 0.0f;
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < N; ++i)
            squares = squares + Lanes(x[i] * x[i]);
        const Lanes norm = root(simd::sum<LANES>(squares));
        constexpr float LENGTH = CENTROIDS::DEVIATION / inverse_root(N * LANES), SMALLEST = 1e-18f;
        const Lanes inverse = simd::divide<LANES>(Lanes(LENGTH), simd::max<float, LANES>(norm, Lanes(SMALLEST)));
        vec<int, LANES> squared = 0;
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < N; ++i) {
            const Lanes y = x[i] * inverse, size = simd::abs<LANES>(y);
            vec<int, LANES> level = 0, magnitude = CENTROIDS::MAGNITUDES[0];
#pragma clang loop unroll(full)
            for (int l = 1; l < LEVELS; ++l) {
                const Lanes between = 0.5f * float(CENTROIDS::MAGNITUDES[l - 1] + CENTROIDS::MAGNITUDES[l]);
                const simd::mask<LANES> beyond = size > between;
                level = simd::select<int, LANES>(beyond, vec<int, LANES>(l), level);
                magnitude = simd::select<int, LANES>(beyond, vec<int, LANES>(CENTROIDS::MAGNITUDES[l]), magnitude);
            }
            squared = squared + vec<int, LANES>(magnitude * magnitude);
            codes[i] = simd::select<int, LANES>(y < Lanes(0.0f), vec<int, LANES>(level + LEVELS), level);
        }
        return simd::divide<LANES>(
            norm, Lanes(root(simd::sum<LANES>(simd::convert<float, int, LANES>(squared))))); // an exact sum
    }

    template <int MATRICES, class PUT> static inline void pack(const vec<int, LANES> *codes, const PUT &put) {
        using Codes = vec<int, LANES>;
        constexpr int SHARE = BITS == 4 ? 2 : 4;
        ARCMTP_UNROLL_ON_GPU
        for (int first = 0; first < MATRICES; first += SHARE) {
            Codes byte = 0;
            ARCMTP_UNROLL_ON_GPU
            for (int i = 0; i < SHARE; ++i)
                byte = byte | Codes(Codes(codes[first + i] & (BITS == 4 ? 15 : 3)) << (i * (8 / SHARE)));
            put(first / SHARE * 256, byte);
        }
        if constexpr (BITS == 3) {
            ARCMTP_UNROLL_ON_GPU
            for (int first = 0; first < MATRICES; first += 8) {
                Codes byte = 0;
                ARCMTP_UNROLL_ON_GPU
                for (int i = 0; i < 8; ++i)
                    if (first + i < MATRICES)
                        byte = byte | Codes(Codes(codes[first + i] >> 2) << i);
                put(low_bytes(MATRICES * LANES) + first / 8 * 256, byte);
            }
        }
    }

  private:
    static inline float root(float x) { return simd::lane<float, LANES>(simd::sqrt<LANES>(Lanes(x)), 0); }

    /// Bytes value + 128 of bytes whose lowest BITS bits are codes.
    template <class WORDS> static inline WORDS look_up(WORDS codes) {
        if constexpr (simd::LOOKS_UP_BYTES)
            return simd::look_up_bytes(codes & (2 * LEVELS - 1) * 0x01010101u, TABLE.words[0], TABLE.words[1],
                                       TABLE.words[2], TABLE.words[3]);
        else {
            // Where a byte is negative, the complement of 128 + magnitude is 127 - magnitude.
            const WORDS sign = WORDS(codes >> simd::u32(BITS - 1)) & 0x01010101u;
            return WORDS(choose<BITS - 1, 0>(codes) ^ WORDS(sign * 255u)) + sign;
        }
    }

    /// Bytes 128 + magnitude, that of level FIRST where all bits are 0: the lowest BIT bits choose, one after the
    /// other.
    template <int BIT, int FIRST, class WORDS> static inline WORDS choose(WORDS levels) {
        if constexpr (BIT == 0)
            return WORDS((128u + CENTROIDS::MAGNITUDES[FIRST]) * 0x01010101u);
        else {
            const WORDS chosen = WORDS(WORDS(levels >> simd::u32(BIT - 1)) & 0x01010101u) * 255u;
            return simd::choose_bits(chosen, choose<BIT - 1, FIRST + (1 << (BIT - 1))>(levels),
                                     choose<BIT - 1, FIRST>(levels));
        }
    }

    struct Table {
        simd::u32 words[4];
        constexpr Table() : words() {
            for (int i = 0; i < 16; ++i) {
                const int magnitude = CENTROIDS::MAGNITUDES[i % LEVELS];
                words[i / 4] |= simd::u32(128 + (i / LEVELS % 2 ? -magnitude : magnitude)) << i % 4 * 8;
            }
        }
    };
    static constexpr Table TABLE{};
};

/// MAGNITUDES: those of the best 16 and 8 centroids of a normal distribution (Lloyd and Max; TurboQuant's), in integers
/// that lose no more (9.75 and 18.6 % of the norm). DEVIATION: the standard deviation of the values they are made for.
struct Centroids16 {
    static constexpr int BITS = 4, MAGNITUDES[8] = {6, 18, 30, 43, 57, 73, 93, 123};
    static constexpr float DEVIATION = 45.1f;
};
struct Centroids8 {
    static constexpr int BITS = 3, MAGNITUDES[4] = {13, 40, 71, 114};
    static constexpr float DEVIATION = 53.0f;
};
using KvTurbo4 = KvTurbo<Centroids16>;
using KvTurbo3 = KvTurbo<Centroids8>;

/// How a format holds a head.
template <class KV, int HEAD_DIM> struct KvHead {
    static constexpr int BLOCK = power_of_two_divisor(HEAD_DIM, KV::LARGEST_BLOCK), BLOCKS = HEAD_DIM / BLOCK;
    static constexpr int ROTATION = power_of_two_divisor(HEAD_DIM, KV::LARGEST_ROTATION);
    static constexpr int MATRICES = HEAD_DIM / LANES;
    static constexpr int SCALES = KV::code_bytes(HEAD_DIM); // half [BLOCKS][LANES]
    static constexpr int TILE_BYTES = SCALES + BLOCKS * LANES * 2, POSITION = TILE_BYTES / LANES;
    static constexpr int CHAINS = BLOCKS % 2 == 0 ? 2 : 1;
    static_assert(HEAD_DIM % KV::DIMENSIONS == 0);

    /// A key (part 0) or a value (part 1) to its place in a tile.
    static inline void store(u8 *tile, int place, int part, const Lanes (&head)[MATRICES]) {
        Lanes rotated[MATRICES];
        vec<int, LANES> codes[MATRICES];
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < MATRICES; ++i)
            rotated[i] = head[i];
        rotate<ROTATION>(rotated);
        ARCMTP_UNROLL_ON_GPU
        for (int b = 0; b < BLOCKS; ++b) {
            constexpr int N = BLOCK / LANES;
            const Lanes scale = KV::template encode<N>(rotated + b * N, codes + b * N);
            simd::scatter<half, 1>(reinterpret_cast<half *>(tile + SCALES) + b * LANES, vec<int, 1>(place),
                                   simd::part<1, 0, typename simd::element<half>::type, LANES>(to_half(scale)));
        }
        const vec<int, LANES> lane = simd::iota<LANES>();
        const vec<int, LANES> of_key = vec<int, LANES>(vec<int, LANES>(lane >> 2) << 6) + vec<int, LANES>(lane & 3);
        const vec<int, LANES> index = part == 0
                                          ? vec<int, LANES>(of_key + place * 4)
                                          : vec<int, LANES>(vec<int, LANES>(lane << 2) + (place / 4 * 64 + place % 4));
        KV::template pack<MATRICES>(codes, [=](int first, vec<int, LANES> bytes) {
            simd::scatter<u8, LANES>(tile + first, index, simd::convert<u8, int, LANES>(bytes));
        });
    }
    static inline Lanes scale(const u8 *tile, int block) { return load_half<LANES>(tile + SCALES + block * LANES * 2); }
};

template <int HEAD_DIM> struct KvHead<KvF16, HEAD_DIM> {
    static constexpr int POSITION = HEAD_DIM, CHAINS = 2; // elements of a position

    /// A key (part 0) or a value (part 1) to its place in a tile.
    static inline void store(half *tile, int place, int part, const Lanes (&head)[HEAD_DIM / LANES]) {
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < HEAD_DIM / LANES; ++i) {
            if (part == 0)
                simd::scatter<half, LANES>(tile + place + i * LANES * LANES, simd::iota<LANES>() * LANES,
                                           to_half(head[i]));
            else
                simd::store<half, LANES>(tile + place * HEAD_DIM + i * LANES, to_half(head[i]));
        }
    }
};

} // namespace arcmtp
