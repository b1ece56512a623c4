// Device weight formats (docs/design.md) and the product of one column tile with rows of activations.
#pragma once

#include "activations.hpp"

namespace arcmtp {

using simd::half;
using simd::LANES;
using Lanes = vec<float, LANES>;

enum class Scheme { group, group_min, exponent, super, super_min, super16, super16_min };

constexpr bool of_supers(Scheme s) { return s >= Scheme::super; } // 256 inputs share a scale
/// Groups of 32 inputs whose planes lie together, and the bytes of their scales.
constexpr int span_groups(Scheme s) { return of_supers(s) ? 8 : s == Scheme::exponent ? 4 : 2; }
constexpr int scale_bytes(Scheme s) {
    return s == Scheme::group       ? 2 * 32
           : s == Scheme::group_min ? 2 * 64
           : s == Scheme::exponent  ? 4 * 16
           : s == Scheme::super     ? 8 * 16 + 32
           : s == Scheme::super16   ? 8 * 32 + 32
                                    : 8 * 32 + 64;
}

/// A code means code - ZERO, or, if LEVELS is not void, what it says by DIVISOR.
template <int BITS_, Scheme SCHEME_, int ZERO_, class LEVELS_ = void, int DIVISOR_ = 1> struct Quantised {
    static constexpr int BITS = BITS_, ZERO = ZERO_, DIVISOR = DIVISOR_;
    static constexpr Scheme SCHEME = SCHEME_;
    using LEVELS = LEVELS_;
    static constexpr bool HALVES =
        SCHEME == Scheme::super16 || SCHEME == Scheme::super16_min; // 16 inputs share a scale
    static constexpr bool MINIMUM =
        SCHEME == Scheme::group_min || SCHEME == Scheme::super_min || SCHEME == Scheme::super16_min;
    static constexpr int CODE_BYTES = BITS * 64, LOW_BYTES = (BITS == 6 ? 4 : BITS) * 64; // of one group of 32 inputs
    static constexpr int SPAN = span_groups(SCHEME);
    static constexpr int SPAN_BYTES = SPAN * CODE_BYTES + scale_bytes(SCHEME);
};
template <int BITS, Scheme SCHEME, class LEVELS, int DIVISOR = 1>
using Coded = Quantised<BITS, SCHEME, LEVELS::ZERO, LEVELS, DIVISOR>;
template <class T> struct Plain {
    using Value = T;
};

using W4 = Quantised<4, Scheme::group, 8>;
using W4_MIN = Quantised<4, Scheme::group_min, 0>;
using W4_K = Quantised<4, Scheme::super_min, 0>;
using W6 = Quantised<6, Scheme::group, 16>;
using W6_MIN = Quantised<6, Scheme::group_min, 0>;
using W6_K = Quantised<6, Scheme::super_min, 0>;
using W6_16 = Quantised<6, Scheme::super16, 32>;
using W8 = Quantised<8, Scheme::group, 128>;
using W2 = Quantised<2, Scheme::group, 1>;
using W2_K = Quantised<2, Scheme::super16_min, 0>;
using F16 = Plain<half>;
using BF16 = Plain<simd::u16>;
using F32 = Plain<float>;

using simd::Levels;
using Iq4Levels = Levels<-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113>;
using E2m1Levels = Levels<0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12>;
using Iq3sLevels = Levels<1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15>;
using Iq3xxsLevels = Levels<2, 6, 10, 14, 18, 22, 26, 31, -2, -6, -10, -14, -18, -22, -26, -31>;
using Q3Levels = Levels<-4, -3, -2, -1, 0, 1, 2, 3>;
using Iq2Levels = Levels<8, 25, 43, 0, -8, -25, -43, 0>;
using Iq1Levels = Levels<-7, 1, 9, 0, -9, -1, 7, 0>;
using IQ4_NL = Coded<4, Scheme::group, Iq4Levels>;
using IQ4_XS = Coded<4, Scheme::super, Iq4Levels>;
using MXFP4 = Coded<4, Scheme::exponent, E2m1Levels>;
using IQ3_S = Coded<4, Scheme::super, Iq3sLevels>;
using IQ3_XXS = Coded<4, Scheme::super, Iq3xxsLevels, 2>;
using Q3_K = Coded<3, Scheme::super16, Q3Levels>;
using IQ2 = Coded<3, Scheme::super, Iq2Levels, 8>;
using IQ2_16 = Coded<3, Scheme::super16, Iq2Levels, 8>;
using IQ1 = Coded<3, Scheme::super, Iq1Levels, 8>;
using IQ1_16 = Coded<3, Scheme::super16, Iq1Levels, 8>;

template <class F> struct is_plain : std::false_type {};
template <class T> struct is_plain<Plain<T>> : std::true_type {};

template <class F, int K> constexpr simd::u64 tile_bytes() {
    if constexpr (is_plain<F>::value)
        return simd::u64(K) * LANES * sizeof(typename F::Value);
    else
        return simd::u64(K / 32 + F::SPAN - 1) / F::SPAN * F::SPAN_BYTES;
}

template <int N> inline vec<float, N> load_half(const u8 *from) {
    return simd::convert<float, typename simd::element<half>::type, N>(
        simd::load<half, N>(reinterpret_cast<const half *>(from)));
}
template <class T> inline vec<int, LANES> load_small(const u8 *from) {
    return simd::convert<int, T, LANES>(simd::load<T, LANES>(reinterpret_cast<const T *>(from)));
}
inline Lanes to_float(vec<int, LANES> v) { return simd::convert<float, int, LANES>(v); }

/// 2^(code - 128), what MXFP4's scale codes mean where its values are doubled; the two least are subnormal.
template <int N> inline vec<float, N> power_of_two(vec<int, N> code) {
    return simd::bitcast<float, int, N>(
        simd::select<int, N>(code < 2, vec<int, N>(vec<int, N>(0x00200000) << code), vec<int, N>((code - 1) << 23)));
}

/// Plain values as floats.
template <class T, int N> inline vec<float, N> widen(vec<T, N> values) {
    if constexpr (std::is_same_v<T, simd::u16>)
        return simd::bitcast<float, simd::u32, N>(
            vec<simd::u32, N>(simd::convert<simd::u32, simd::u16, N>(values) << 16u));
    else
        return simd::convert<float, typename simd::element<T>::type, N>(values);
}

/// The planes of the span that holds group `g` of a tile, and which of the span's groups it is.
template <class F> struct Planes {
    const u8 *low, *high, *scales;
    int group;

    inline Planes(const u8 *tile, simd::u32 g)
        : low(tile + g / F::SPAN * F::SPAN_BYTES), high(low + F::SPAN * F::LOW_BYTES),
          scales(low + F::SPAN * F::CODE_BYTES), group(int(g % F::SPAN)) {}
};

/// The scales of the columns in a group, of its halves where these have one each, and what is added for each input.
template <class F> inline void load_scales(const Planes<F> &planes, Lanes (&scale)[2], Lanes (&minimum)[2]) {
    const int group = planes.group;
    const u8 *scales = planes.scales, *super = scales + scale_bytes(F::SCHEME) - (F::MINIMUM ? 64 : 32);
    if constexpr (F::SCHEME == Scheme::group || F::SCHEME == Scheme::group_min) {
        scale[0] = load_half<LANES>(scales + group * 32);
        if constexpr (F::SCHEME == Scheme::group_min)
            minimum[0] = load_half<LANES>(scales + (F::SPAN + group) * 32);
    } else if constexpr (F::SCHEME == Scheme::exponent)
        scale[0] = power_of_two<LANES>(load_small<u8>(scales + group * 16));
    else if constexpr (F::SCHEME == Scheme::super_min) {
        scale[0] = load_half<LANES>(super) * to_float(load_small<u8>(scales + group * 16));
        minimum[0] = load_half<LANES>(super + 32) * to_float(load_small<u8>(scales + (F::SPAN + group) * 16)) * -1.0f;
    } else if constexpr (F::SCHEME == Scheme::super16_min) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            const vec<int, LANES> both = load_small<u8>(scales + group * 32 + part * 16);
            scale[part] = load_half<LANES>(super) * to_float(vec<int, LANES>(both & 15));
            minimum[part] = load_half<LANES>(super + 32) * to_float(vec<int, LANES>(both >> 4)) * -1.0f;
        }
    } else {
        const Lanes d = load_half<LANES>(super) * (1.0f / F::DIVISOR);
        constexpr int parts = F::HALVES ? 2 : 1;
#pragma unroll
        for (int part = 0; part < parts; ++part)
            scale[part] = d * to_float(load_small<simd::i8>(scales + (group * parts + part) * 16));
    }
}

/// How far ahead a CPU thread asks for weights, in bytes (docs/log.md).
constexpr int STREAM_DISTANCE = 6912;

/// `start` plus integer products of PART (0: all, 1: first half, 2: last half) of one group; six bits are four and two.
template <class F, int PART, int ROWS> struct GroupDots {
    using Ints = vec<int, LANES>[ROWS];
    template <class ROW>
    static inline void run(const u8 *codes, const u8 *, ROW row, int k, int group, const Ints &start, Ints &dots) {
        simd::Weights<F::BITS> weights;
        weights.load_group(codes);
        simd::Activations<ROWS> a;
        a.load_group(
            [&](int r) { return reinterpret_cast<const simd::i8 *>(row(r)) + simd::activation_order<F::BITS>() * k; },
            group);
        const auto sums = sums_of(weights, a, start);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            dots[r] = sums[r];
    }

  private:
    template <class WEIGHTS, class ACTIVATIONS>
    static inline auto sums_of(const WEIGHTS &weights, const ACTIVATIONS &a, const Ints &start) {
        if constexpr (std::is_void_v<typename F::LEVELS>)
            return simd::dot<PART>(weights, a, start);
        else
            return simd::dot_levels<typename F::LEVELS, PART>(weights, a, start);
    }
};
template <Scheme S, int ZERO, int PART, int ROWS> struct GroupDots<Quantised<6, S, ZERO>, PART, ROWS> {
    using Ints = vec<int, LANES>[ROWS];
    template <class ROW>
    static inline void run(const u8 *codes, const u8 *high, ROW row, int k, int group, const Ints &start, Ints &dots) {
        Ints upper, zero;
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            zero[r] = 0;
        GroupDots<Quantised<4, S, ZERO>, PART, ROWS>::run(codes, nullptr, row, k, group, start, dots);
        GroupDots<Quantised<2, S, ZERO>, PART, ROWS>::run(high, nullptr, row, k, group, zero, upper);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            dots[r] += upper[r] * 16;
    }
};

/// The product of one tile of a quantised matrix with ROWS rows, over one of SLICES slices of the inputs.
template <class F, int K, int ROWS, int SLICES> struct TileSlice {
    static constexpr int GROUPS = K / 32;
    static constexpr int PER_SLICE = (GROUPS + SLICES - 1) / SLICES;
    static constexpr int PAIR_BYTES = F::SPAN_BYTES / F::SPAN * 2; // of two groups

    template <class ROW> static inline void run(const u8 *tile, ROW row, int slice, Lanes (&acc)[ROWS]) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            acc[r] = 0.0f;
        const int first = SLICES == 1 ? 0 : slice * PER_SLICE; // a constant where it can be one
        const int end = first + PER_SLICE < GROUPS ? first + PER_SLICE : GROUPS;
#pragma unroll 2
        for (int g = first; g < end; ++g) {
            if (g % 2 == 0)
                simd::stream_ahead<PAIR_BYTES>(tile + g / 2 * PAIR_BYTES + STREAM_DISTANCE);
            const Planes<F> planes(tile, simd::u32(g));
            Lanes scale[2], minimum[2];
            load_scales(planes, scale, minimum);
            if constexpr (F::HALVES) {
                add_group<1>(planes, row, g, scale[0], minimum[0], acc);
                add_group<2>(planes, row, g, scale[1], minimum[1], acc);
            } else
                add_group<0>(planes, row, g, scale[0], minimum[0], acc);
        }
    }

  private:
    template <int PART, class ROW>
    static inline void add_group(const Planes<F> &planes, ROW row, int g, Lanes scale, Lanes minimum,
                                 Lanes (&acc)[ROWS]) {
        using Row = ActivationRow<K>;
        vec<int, LANES> start[ROWS], dots[ROWS];
        int minus_sum[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int *sums = reinterpret_cast<const int *>(row(r) + Row::SUMS) + g;
            minus_sum[r] = PART == 0 ? sums[0] : PART == 1 ? sums[0] - sums[GROUPS] : sums[GROUPS];
            start[r] = vec<int, LANES>(minus_sum[r]) * F::ZERO;
        }
        GroupDots<F, PART, ROWS>::run(planes.low + planes.group * F::LOW_BYTES, planes.high + planes.group * 128, row,
                                      K, g, start, dots);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const float row_scale = reinterpret_cast<const float *>(row(r) + Row::SCALES)[g];
            acc[r] =
                simd::fma<float, LANES>(simd::convert<float, int, LANES>(dots[r]), Lanes(scale * row_scale), acc[r]);
            if constexpr (F::MINIMUM)
                acc[r] = simd::fma<float, LANES>(minimum, Lanes(row_scale * float(-minus_sum[r])), acc[r]);
        }
    }
};

/// Ask for the plain weights of COUNT times 16 inputs, STREAM_DISTANCE ahead: before the inputs are computed, since
/// behind them it makes products of several rows 1.2 times slower on a CPU (docs/log.md).
template <int COUNT, class T> inline void stream_inputs(const T *weights) {
    simd::stream_ahead<COUNT * LANES * LANES *int(sizeof(T))>(reinterpret_cast<const u8 *>(weights) + STREAM_DISTANCE);
}

/// acc += 16 inputs x of each row times their plain weights, [16][16 columns].
template <class T, int ROWS>
inline void add_inputs(const T *weights, const vec<float, LANES> (&x)[ROWS], Lanes (&acc)[ROWS]) {
    const simd::Vectors<T, LANES> columns(weights);
#pragma unroll
    for (int i = 0; i < LANES; ++i) {
        const Lanes w = widen<T, LANES>(columns[i]);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            acc[r] = simd::fma<float, LANES>(w, Lanes(simd::lane<float, LANES>(x[r], i)), acc[r]);
    }
}

/// F16, BF16 and F32 weights: float activations, row(r)(k) gives 16 of them from input k.
template <class T, int K, int ROWS, int SLICES> struct TileSlice<Plain<T>, K, ROWS, SLICES> {
    static constexpr int VECTORS = K / LANES, PER_SLICE = (VECTORS + SLICES - 1) / SLICES;

    template <class ROW> static inline void run(const u8 *tile, ROW row, int slice, Lanes (&acc)[ROWS]) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            acc[r] = 0.0f;
        const T *weights = reinterpret_cast<const T *>(tile);
        const int end = (slice + 1) * PER_SLICE < VECTORS ? (slice + 1) * PER_SLICE : VECTORS;
        for (int v = slice * PER_SLICE; v < end; ++v) {
            stream_inputs<1>(weights + v * LANES * LANES);
            Lanes x[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                x[r] = row(r)(v * LANES);
            add_inputs<T, ROWS>(weights + v * LANES * LANES, x, acc);
        }
    }
};

/// Add the slices' parts in slice order. Each of ITEMS items of WIDTH vectors is finished by one thread, which calls
/// emit(item, parts); `acc` is [ITEMS][WIDTH]. WAYS times so many threads do it side by side, each SLICES of them
/// alone. Team memory: WAYS * SLICES * ITEMS * WIDTH * 64 bytes.
template <int SLICES, int ITEMS, int WIDTH, int WAYS = 1, class EMIT>
inline void reduce_slices(Lanes (&acc)[ITEMS * WIDTH], EMIT emit) {
    if constexpr (SLICES == 1) {
#pragma unroll
        for (int item = 0; item < ITEMS; ++item) {
            Lanes parts[WIDTH];
#pragma unroll
            for (int w = 0; w < WIDTH; ++w)
                parts[w] = acc[item * WIDTH + w];
            emit(item, parts);
        }
    } else {
        const int rank = WAYS > 1 ? simd::team_rank() % SLICES : simd::team_rank();
        const int before = WAYS > 1 ? simd::team_rank() / SLICES * SLICES : 0;
        auto place = [=](int slice, int index) { return ((before + slice) * ITEMS * WIDTH + index) * LANES * 4; };
#pragma unroll
        for (int i = 0; i < ITEMS * WIDTH; ++i)
            simd::team_store<float, LANES>(place(rank, i), acc[i]);
        simd::team_barrier<SLICES * WAYS>();
        for (int item = rank; item < ITEMS; item += SLICES) {
            Lanes parts[WIDTH];
#pragma unroll
            for (int w = 0; w < WIDTH; ++w) {
                parts[w] = simd::team_load<float, LANES>(place(0, item * WIDTH + w));
                ARCMTP_UNROLL_ON_GPU
                for (int slice = 1; slice < SLICES; ++slice)
                    parts[w] += simd::team_load<float, LANES>(place(slice, item * WIDTH + w));
            }
            emit(item, parts);
        }
        simd::team_barrier<SLICES * WAYS>();
    }
}

} // namespace arcmtp
