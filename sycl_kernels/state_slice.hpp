// Columns of a recurrent state of the delta rule, and the products with keys and queries that advance them.
#pragma once

#include "formats.hpp"

namespace arcmtp {

/// N floats in pieces of 256 bytes, the widest that one load takes, or of a vector where those do not fit.
template <int N> struct Floats {
    static constexpr int WIDTH = N % 64 == 0 ? 64 : LANES, COUNT = N / WIDTH;
    vec<float, WIDTH> piece[COUNT];

    inline void load(const float *from) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            piece[i] = simd::load<float, WIDTH>(from + i * WIDTH);
    }
    inline void store(float *to) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            simd::store<float, WIDTH>(to + i * WIDTH, piece[i]);
    }
    static inline void prefetch(const float *from) {
        for (int i = 0; i < COUNT; ++i)
            simd::prefetch<WIDTH * 4>(from + i * WIDTH);
    }
    inline void team_load(int byte_offset) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            piece[i] = simd::team_load<float, WIDTH>(byte_offset + i * WIDTH * 4);
    }
    inline void team_store(int byte_offset) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            simd::team_store<float, WIDTH>(byte_offset + i * WIDTH * 4, piece[i]);
    }
};

/// acc + a * b, LANES products after LANES products.
template <int N> inline Lanes add_products(Lanes acc, vec<float, N> a, vec<float, N> b) {
    if constexpr (N == LANES)
        return simd::fma<float, LANES>(a, b, acc);
    else {
        constexpr int half = N / 2;
        acc = add_products<half>(acc, simd::part<half, 0, float, N>(a), simd::part<half, 0, float, N>(b));
        return add_products<half>(acc, simd::part<half, half, float, N>(a), simd::part<half, half, float, N>(b));
    }
}
template <int N> inline Lanes products(const Floats<N> &a, const Floats<N> &b) {
    Lanes acc = 0.0f;
#pragma unroll
    for (int i = 0; i < Floats<N>::COUNT; ++i)
        acc = add_products<Floats<N>::WIDTH>(acc, a.piece[i], b.piece[i]);
    return acc;
}

/// Neighbouring lanes of COUNT vectors added until they fit one vector, which holds LANES / COUNT parts of each.
template <int COUNT> inline Lanes add_neighbours(const Lanes *v) {
    if constexpr (COUNT == 1)
        return v[0];
    else {
        constexpr int half = LANES / 2;
        const Lanes low = add_neighbours<COUNT / 2>(v), high = add_neighbours<COUNT / 2>(v + COUNT / 2);
        return simd::join<float, half>(simd::every<half, 2, 0, float, LANES>(low),
                                       simd::every<half, 2, 0, float, LANES>(high)) +
               simd::join<float, half>(simd::every<half, 2, 1, float, LANES>(low),
                                       simd::every<half, 2, 1, float, LANES>(high));
    }
}

/// The rest of these sums: parts that lie together are added until each of COUNT sums is one.
template <int COUNT, int N> inline vec<float, COUNT> add_parts(vec<float, N> parts) {
    if constexpr (N == COUNT)
        return parts;
    else
        return add_parts<COUNT, N / 2>(simd::every<N / 2, 2, 0, float, N>(parts) +
                                       simd::every<N / 2, 2, 1, float, N>(parts));
}

/// COLUMNS columns of the state: in registers from row to row, or, where a thread has too few, in memory.
template <int K_DIM, int COLUMNS, bool IN_REGISTERS> struct StateSlice {
    static constexpr int FLOATS = COLUMNS * K_DIM;
    using Keys = Floats<K_DIM>;
    using Columns = vec<float, COLUMNS>;

    inline void load(float *state) {
        memory = state;
        if constexpr (IN_REGISTERS) {
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j)
                registers[j].load(state + j * K_DIM);
        }
    }
    /// What is in registers; what is not was stored when it was updated.
    inline void store(float *state) const {
        if constexpr (IN_REGISTERS) {
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j)
                registers[j].store(state + j * K_DIM);
        }
    }

    /// The product of each column with x. Meanwhile, unless `ahead` is null, as many floats there are asked for.
    inline Columns dot(const Keys &x, const float *ahead) const {
        Lanes sums[COLUMNS];
        ARCMTP_UNROLL_ON_GPU
        for (int j = 0; j < COLUMNS; ++j) {
            if (!IN_REGISTERS && ahead)
                Keys::prefetch(ahead + j * K_DIM);
            sums[j] = products<K_DIM>(column(j), x);
        }
        return add_lanes(sums);
    }

    /// S = decay S + k ⊗ delta, from now on at `to`.
    inline void update(const Keys &k, float decay, Columns delta, float *to) {
        ARCMTP_UNROLL_ON_GPU
        for (int j = 0; j < COLUMNS; ++j)
            keep(j, updated(j, k, decay, delta), to);
        memory = to;
    }

    /// The same, or, if `to` is null, without keeping it, and the product of each new column with x.
    inline Columns update(const Keys &k, float decay, Columns delta, float *to, const Keys &x) {
        Lanes sums[COLUMNS];
        ARCMTP_UNROLL_ON_GPU
        for (int j = 0; j < COLUMNS; ++j) {
            const Keys now = updated(j, k, decay, delta);
            sums[j] = products<K_DIM>(now, x);
            if (IN_REGISTERS || to)
                keep(j, now, to);
        }
        memory = to;
        return add_lanes(sums);
    }

  private:
    Keys registers[IN_REGISTERS ? COLUMNS : 1];
    float *memory;

    inline Keys column(int j) const {
        if constexpr (IN_REGISTERS)
            return registers[j];
        Keys values;
        values.load(memory + j * K_DIM);
        return values;
    }
    inline void keep(int j, const Keys &values, float *to) {
        if constexpr (IN_REGISTERS)
            registers[j] = values;
        else
            values.store(to + j * K_DIM);
    }
    inline Keys updated(int j, const Keys &k, float decay, Columns delta) const {
        using Piece = vec<float, Keys::WIDTH>;
        Keys values = column(j);
        const Piece d = simd::lane<float, COLUMNS>(delta, j);
#pragma unroll
        for (int i = 0; i < Keys::COUNT; ++i)
            values.piece[i] = simd::fma<float, Keys::WIDTH>(k.piece[i], d, Piece(values.piece[i] * decay));
        return values;
    }
    static inline Columns add_lanes(const Lanes (&sums)[COLUMNS]) {
        return add_parts<COLUMNS, LANES>(add_neighbours<COLUMNS>(sums));
    }
};

} // namespace arcmtp
