// The CPU's body of what a patch of a prompt chunk is made of (patches.hpp), as simd_patches_gpu.hpp describes it.
#pragma once

#include "simd_cpu.hpp"

namespace simd {

template <int BITS> inline void load_two_groups(Weights<BITS> &first, Weights<BITS> &second, const u8 *codes) {
    first.load_group(codes);
    second.load_group(codes + 64 * BITS);
}

template <int BYTES> inline void ask_weights(const u8 *) {}
template <int BYTES, int ROWS> inline void ask_rows(const u8 *, vec<u32, ROWS>) {}

template <int ROWS, int GROUPS> struct RowCodes {
    const u8 *rows[ROWS];
    int k;
    inline RowCodes(const u8 *first, vec<u32, ROWS> offset, int k, int group) : k(k) {
        for (int r = 0; r < ROWS; ++r)
            rows[r] = first + 32 * group + offset[r];
    }
    template <int BITS> inline Activations<8> octet(int group, int number) const {
        Activations<8> a;
        for (int r = 0; r < 8; ++r)
            a.words[r] =
                reinterpret_cast<const int *>(rows[8 * number + r] + activation_order<BITS>() * k + 32 * group);
        return a;
    }
};

template <class T, int ROWS, int GROUPS> struct RowWords {
    vec<T, ROWS> values[GROUPS];
    inline RowWords(const void *from, vec<u32, ROWS> offset) {
        for (int g = 0; g < GROUPS; ++g)
            for (int r = 0; r < ROWS; ++r)
                values[g][r] = reinterpret_cast<const T *>(static_cast<const u8 *>(from) + offset[r])[g];
    }
    inline vec<T, ROWS> operator[](int group) const { return values[group]; }
};

template <int ROWS> struct RowSums {
    vec<float, LANES> values[ROWS];
    inline void clear() {
        for (int r = 0; r < ROWS; ++r)
            values[r] = 0.0f;
    }
    inline void add(const RowSums &other) {
        for (int r = 0; r < ROWS; ++r)
            values[r] += other.values[r];
    }
    inline void set(int row, vec<float, LANES> sums) { values[row] = sums; }
    inline vec<float, LANES> operator[](int row) const { return values[row]; }
    inline void add_products(int first, const Dots<8> &dots, vec<float, LANES> scale, vec<float, ROWS> factors) {
        for (int r = 0; r < 8; ++r) {
            const vec<float, LANES> dot = convert<float, int, LANES>(dots.sums[r]);
            values[first + r] = fma<float, LANES>(dot, scale * factors[first + r], values[first + r]);
        }
    }
    inline void add_outer(int first, vec<float, LANES> column, vec<float, ROWS> factors) {
        for (int r = 0; r < 8; ++r)
            values[first + r] = fma<float, LANES>(column, vec<float, LANES>(factors[first + r]), values[first + r]);
    }
};

} // namespace simd
