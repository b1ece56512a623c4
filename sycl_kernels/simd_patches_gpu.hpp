// The GPU's body of what a patch of a prompt chunk is made of (patches.hpp).
#pragma once

#include "simd_gpu.hpp"

namespace simd {

/// Two groups that lie one behind the other at a multiple of 8 bytes, in loads as wide as the device has them, 512
/// bytes.
template <int BITS> inline void load_two_groups(Weights<BITS> &first, Weights<BITS> &second, const u8 *codes) {
    constexpr int WORDS = BITS * 16, WIDE = BITS <= 4 ? 2 * WORDS : WORDS;
    constexpr esimd::properties aligned{esimd::alignment<8>};
    vec<u32, 2 * WORDS> both;
#pragma unroll
    for (int i = 0; i < 2 * WORDS; i += WIDE)
        both.template select<WIDE, 1>(i) =
            esimd::block_load<u32, WIDE>(reinterpret_cast<const u32 *>(codes) + i, aligned);
    first.words = both.template select<WORDS, 1>(0);
    second.words = both.template select<WORDS, 1>(WORDS);
}

/// Ask for BYTES bytes of weights, a multiple of 64, that a patch will load soon.
template <int BYTES> inline void ask_weights(const u8 *from) {
    simd::prefetch<BYTES>(from);
    constexpr int asked = BYTES < 256 ? power_of_two_within(BYTES) : BYTES / 256 * 256;
    if constexpr (asked < BYTES)
        ask_weights<BYTES - asked>(from + asked);
}

/// The same for BYTES bytes of each of ROWS rows, which begin `offset` bytes behind `from`: a line of each a message.
template <int BYTES, int ROWS> inline void ask_rows(const u8 *from, vec<u32, ROWS> offset) {
#pragma unroll
    for (int at = 0; at < BYTES; at += 64)
        esimd::prefetch<u32, ROWS>(reinterpret_cast<const u32 *>(from + at), offset,
                                   esimd::properties{esimd::cache_hint_L1<esimd::cache_hint::cached>,
                                                     esimd::cache_hint_L2<esimd::cache_hint::cached>});
}

/// GROUPS groups of 32 codes, from `group` on, of ROWS activation rows of k values, which begin `offset` bytes behind
/// `rows`: as dpas takes eight rows.
template <int ROWS, int GROUPS> struct RowCodes {
    Activations<8> octets[GROUPS][ROWS / 8];
    inline RowCodes(const u8 *rows, vec<u32, ROWS> offset, int, int group) {
        constexpr int CODES = 32 * GROUPS;
        const i8 *codes = reinterpret_cast<const i8 *>(rows) + 32 * group;
#pragma unroll
        for (int octet = 0; octet < ROWS / 8; ++octet) {
            vec<i8, 8 * CODES> loaded; // eight rows at once: else the compiler has each load wait for the one before
#pragma unroll
            for (int r = 0; r < 8; ++r)
                loaded.template select<CODES, 1>(r * CODES) = simd::load<i8, CODES>(codes + u32(offset[8 * octet + r]));
#pragma unroll
            for (int r = 0; r < 8; ++r)
#pragma unroll
                for (int g = 0; g < GROUPS; ++g)
                    octets[g][octet].codes.template select<32, 1>(r * 32) =
                        loaded.template select<32, 1>(r * CODES + 32 * g);
        }
    }
    template <int BITS> inline const Activations<8> &octet(int group, int number) const {
        return octets[group][number];
    }
};

/// GROUPS words from `from` on for each of ROWS rows that lie `offset` bytes behind; [group] has one of each row.
template <class T, int ROWS, int GROUPS> struct RowWords {
    vec<T, ROWS * GROUPS> values;
    inline RowWords(const void *from, vec<u32, ROWS> offset)
        : values(esimd::gather<T, ROWS * GROUPS, GROUPS>(static_cast<const T *>(from), offset)) {}
    inline vec<T, ROWS> operator[](int group) const {
        vec<T, ROWS * GROUPS> all = values;
        return all.template select<ROWS, 1>(group * ROWS);
    }
};

/// Sums of the 16 columns of a tile for each of ROWS rows.
template <int ROWS> struct RowSums {
    vec<float, ROWS * LANES> values;
    inline void clear() { values = 0.0f; }
    inline void add(const RowSums &other) { values += other.values; }
    inline void set(int row, vec<float, LANES> sums) { values.template select<LANES, 1>(row * LANES) = sums; }
    inline vec<float, LANES> operator[](int row) const {
        vec<float, ROWS * LANES> all = values;
        return all.template select<LANES, 1>(row * LANES);
    }
    /// Add dots * (scale * factor of the row) to the eight rows from `first` on.
    inline void add_products(int first, const Dots<8> &dots, vec<float, LANES> scale, vec<float, ROWS> factors) {
        vec<float, 8 * LANES> products;
#pragma unroll
        for (int r = 0; r < 8; ++r)
            products.template select<LANES, 1>(r * LANES) = scale * float(factors[first + r]);
        add_to(first, simd::convert<float, int, 8 * LANES>(dots.sums), products);
    }
    /// Add column * factor of the row.
    inline void add_outer(int first, vec<float, LANES> column, vec<float, ROWS> factors) {
        vec<float, 8 * LANES> columns, spread;
#pragma unroll
        for (int r = 0; r < 8; ++r) {
            columns.template select<LANES, 1>(r * LANES) = column;
            spread.template select<LANES, 1>(r * LANES) = vec<float, LANES>(float(factors[first + r]));
        }
        add_to(first, columns, spread);
    }

  private:
    inline void add_to(int first, vec<float, 8 * LANES> a, vec<float, 8 * LANES> b) {
        const vec<float, 8 * LANES> before = values.template select<8 * LANES, 1>(first * LANES);
        values.template select<8 * LANES, 1>(first * LANES) = simd::fma<float, 8 * LANES>(a, b, before);
    }
};

} // namespace simd
