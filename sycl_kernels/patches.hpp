// Products of a prompt chunk: a thread computes a patch of rows × column tiles over all inputs, so that a load of
// weights serves all its rows, and a load of activations all its tiles.
//
// It does the slices of the inputs that a step's team shares one after the other and adds them as the team does, so a
// row's bits are those of a step (TileSlice and reduce_slices of formats.hpp).
#pragma once

#include "formats.hpp"

namespace arcmtp {

/// Where the rows of a patch are, and their numbers.
template <int ROWS> struct PatchRows {
    const u8 *quantised;
    const float *plain;
    vec<int, ROWS> numbers;
};

/// ROWS rows from `first` on of `count`; in place of those behind them the last one, which is then computed again.
template <int ROWS> inline vec<int, ROWS> rows_from(int first, int count) {
    return simd::min<int, ROWS>(simd::iota<ROWS>() + first, vec<int, ROWS>(count - 1));
}

/// What the sums of eight rows start from: minus the sum of the activations' codes for each unit of the zero point.
template <class F, int ROWS> inline void zero_points(vec<int, LANES> (&start)[8], vec<int, ROWS> minus_sum, int octet) {
    const vec<int, ROWS> zero = minus_sum * F::ZERO;
#pragma unroll
    for (int r = 0; r < 8; ++r)
        start[r] = F::ZERO ? simd::lane<int, ROWS>(zero, 8 * octet + r) : 0;
}

/// Whether codes of a format need no zero point in a product: they become weights with a sign.
template <class F> struct takes_sign {
    static constexpr bool value = simd::SIGNED_WEIGHTS && std::is_void_v<typename F::LEVELS> && F::BITS != 6 &&
                                  F::BITS >= 4 && F::ZERO == 1 << (F::BITS - 1);
};

/// The codes of a group of 32 inputs and 16 columns: dots<PART> are sums of (code - zero point) * activation.
template <class F> struct GroupCodes {
    simd::Weights<F::BITS> weights;
    static inline void load(const Planes<F> &planes, GroupCodes (&one)[1]) {
        one[0].weights.load_group(planes.low + planes.group * F::LOW_BYTES);
    }
    static inline void load(const Planes<F> &planes, GroupCodes (&two)[2]) {
        simd::load_two_groups(two[0].weights, two[1].weights, planes.low + planes.group * F::LOW_BYTES);
    }

    /// minus_sum: of each row, the sums of the activations' codes.
    template <int PART, class CODES, int ROWS>
    inline simd::Dots<8> dots(const CODES &rows, int group, int octet, vec<int, ROWS> minus_sum) const {
        const auto &a = rows.template octet<F::BITS>(group, octet);
        if constexpr (takes_sign<F>::value)
            return simd::dot_signed<PART>(weights, a);
        else {
            vec<int, LANES> start[8];
            zero_points<F>(start, minus_sum, octet);
            if constexpr (std::is_void_v<typename F::LEVELS>)
                return simd::dot<PART>(weights, a, start);
            else
                return simd::dot_levels<typename F::LEVELS, PART>(weights, a, start);
        }
    }
};
template <Scheme S, int ZERO> struct GroupCodes<Quantised<6, S, ZERO>> {
    using F = Quantised<6, S, ZERO>;
    simd::Weights<4> low;
    simd::Weights<2> high;
    static inline void load(const Planes<F> &planes, GroupCodes (&one)[1]) {
        one[0].low.load_group(planes.low + planes.group * F::LOW_BYTES);
        one[0].high.load_group(planes.high + planes.group * 128);
    }
    static inline void load(const Planes<F> &planes, GroupCodes (&two)[2]) {
        simd::load_two_groups(two[0].low, two[1].low, planes.low + planes.group * F::LOW_BYTES);
        simd::load_two_groups(two[0].high, two[1].high, planes.high + planes.group * 128);
    }

    template <int PART, class CODES, int ROWS>
    inline simd::Dots<8> dots(const CODES &rows, int group, int octet, vec<int, ROWS> minus_sum) const {
        vec<int, LANES> start[8], zero[8];
        zero_points<F>(start, minus_sum, octet);
#pragma unroll
        for (int r = 0; r < 8; ++r)
            zero[r] = 0;
        simd::Dots<8> sums = simd::dot<PART>(low, rows.template octet<4>(group, octet), start);
        sums.add(simd::dot<PART>(high, rows.template octet<2>(group, octet), zero), 16);
        return sums;
    }
};

/// Where the tiles of a patch are.
template <int TILES> struct PatchTiles {
    const u8 *at[TILES];

    /// Successive tiles of `bytes` each.
    inline PatchTiles(const u8 *first, int bytes) {
#pragma unroll
        for (int t = 0; t < TILES; ++t)
            at[t] = first + t * bytes;
    }
    /// Half of them from `first` on and half from `second` on.
    inline PatchTiles(const u8 *first, const u8 *second, int bytes) {
#pragma unroll
        for (int t = 0; t < TILES; ++t)
            at[t] = t < TILES / 2 ? first + t * bytes : second + (t - TILES / 2) * bytes;
    }
};

/// What a patch loads soon, asked for before, AHEAD groups at a time: a thread would else wait for memory 13 times in
/// each of its turns, as its registers have no room for loads that are not used at once (docs/log/operators.md).
/// SHARED threads, which have the same tiles and go through them together, ask for a part of them each.
template <class F, int K, int ROWS, int TILES, int SHARED> struct PatchAhead {
    using Row = ActivationRow<K>;
    static constexpr int GROUPS = K / 32, SPANS = (GROUPS + F::SPAN - 1) / F::SPAN;
    static constexpr int LEAST = F::SPAN < 4 ? 4 / F::SPAN : 1, AHEAD_SPANS = LEAST < SPANS ? LEAST : SPANS;
    static constexpr int AHEAD = AHEAD_SPANS * F::SPAN;
    static constexpr int BYTES = AHEAD_SPANS * F::SPAN_BYTES, TILE_BYTES = SPANS * F::SPAN_BYTES;
    /// Of a tile that is shared: parts, and bytes of each, whole lines.
    static constexpr int PARTS = SHARED > TILES ? SHARED / TILES : 1, PART = (BYTES / PARTS + 63) / 64 * 64;
    static constexpr int WORDS = 16; // of a line: groups whose scales and sums are asked for at once
    /// In registers, for addresses of tiles besides codes in two planes: up to 7.5 KB would be spilled.
    static constexpr bool NO_ROOM = F::BITS == 6 && SHARED == 1;

    /// For the groups from `group` on, a multiple of AHEAD.
    static inline void ask(const PatchTiles<TILES> &tiles, const PatchRows<ROWS> &rows, vec<simd::u32, ROWS> offset,
                           int group) {
        if (NO_ROOM || group >= GROUPS)
            return;
        const int wanted = group / F::SPAN * F::SPAN_BYTES, last = TILE_BYTES - BYTES;
        ask_tiles(tiles, wanted < last ? wanted : last);
        constexpr int codes = 32 * (AHEAD < GROUPS ? AHEAD : GROUPS);
        simd::ask_rows<codes, ROWS>(rows.quantised + (32 * group < K - codes ? 32 * group : K - codes), offset);
        if (group % WORDS)
            return;
        const u8 *words = rows.quantised + 4 * group;
        simd::ask_rows<4, ROWS>(words + Row::SCALES, offset);
        simd::ask_rows<4, ROWS>(words + Row::SUMS, offset);
        if constexpr (F::HALVES)
            simd::ask_rows<4, ROWS>(words + Row::SUMS + GROUPS * 4, offset);
    }

  private:
    static inline void ask_tiles(const PatchTiles<TILES> &tiles, int at) {
        if constexpr (SHARED > 1) {
            const int rank = simd::team_rank(), part = rank / TILES % PARTS * PART;
            const u8 *tile = tiles.at[0] + rank % TILES * TILE_BYTES;
            simd::ask_weights<PART>(tile + at + (part < BYTES - PART ? part : BYTES - PART));
        } else
#pragma unroll
            for (int t = 0; t < TILES; ++t)
                simd::ask_weights<BYTES>(tiles.at[t] + at);
    }
};

/// total[tile][row] = the products of TILES tiles of quantised matrices with ROWS rows. Where more than one thread has
/// these tiles, SHARED says how many, and the tiles lie one behind the other.
template <class F, int K, int ROWS, int TILES, int SLICES, int SHARED = 1> struct Patch {
    using Ahead = PatchAhead<F, K, ROWS, TILES, SHARED>;
    using Row = ActivationRow<K>;
    using Sums = simd::RowSums<ROWS>;
    static constexpr int GROUPS = K / 32, PER_SLICE = (GROUPS + SLICES - 1) / SLICES;
    /// Groups whose activations are loaded together.
    static constexpr int STEP = PER_SLICE % 4 == 0 && GROUPS % 4 == 0   ? 4
                                : PER_SLICE % 2 == 0 && GROUPS % 2 == 0 ? 2
                                                                        : 1;
    /// Groups whose scales are loaded together.
    static constexpr int TOGETHER = STEP % 2 == 0 && F::SCHEME == Scheme::group ? 2 : 1;

    static inline void run(const PatchTiles<TILES> &tiles, const PatchRows<ROWS> &rows, Sums (&total)[TILES]) {
        const vec<simd::u32, ROWS> offset = simd::convert<simd::u32, int, ROWS>(rows.numbers) * simd::u32(Row::BYTES);
        Ahead::ask(tiles, rows, offset, 0);
        for (int slice = 0; slice < SLICES; ++slice) {
            Sums part[TILES];
#pragma unroll
            for (int t = 0; t < TILES; ++t)
                part[t].clear();
            const int end = (slice + 1) * PER_SLICE < GROUPS ? (slice + 1) * PER_SLICE : GROUPS;
#pragma clang loop unroll(disable)
            for (int g = slice * PER_SLICE; g < end; g += STEP) {
                if (g % Ahead::AHEAD == 0)
                    Ahead::ask(tiles, rows, offset, g + Ahead::AHEAD);
                add_groups(tiles, rows.quantised, offset, g, part);
            }
#pragma unroll
            for (int t = 0; t < TILES; ++t)
                if (slice == 0) // 0 + a part would lose the sign of -0
                    total[t] = part[t];
                else
                    total[t].add(part[t]);
        }
    }

  private:
    static inline void add_groups(const PatchTiles<TILES> &tiles, const u8 *quantised, vec<simd::u32, ROWS> offset,
                                  int first, Sums (&part)[TILES]) {
        const simd::RowCodes<ROWS, STEP> codes(quantised, offset, K, first);
        const u8 *words = quantised + 4 * first;
        const simd::RowWords<float, ROWS, STEP> scales(words + Row::SCALES, offset);
        const simd::RowWords<int, ROWS, STEP> sums(words + Row::SUMS, offset);
        const simd::RowWords<int, ROWS, STEP> last(words + Row::SUMS + (F::HALVES ? GROUPS * 4 : 0), offset);
        ARCMTP_UNROLL_ON_GPU
        for (int g = 0; g < STEP; g += TOGETHER) {
            ARCMTP_UNROLL_ON_GPU
            for (int t = 0; t < TILES; ++t) {
                const u8 *tile = tiles.at[t];
                Lanes scale[TOGETHER][2], minimum[TOGETHER][2];
                load_scales_of_step(tile, first + g, scale, minimum);
                GroupCodes<F> weights[TOGETHER];
                GroupCodes<F>::load(Planes<F>(tile, simd::u32(first + g)), weights);
#pragma unroll
                for (int i = 0; i < TOGETHER; ++i)
                    if constexpr (F::HALVES) {
                        const vec<int, ROWS> before = sums[g + i] - last[g + i];
                        add<1>(weights[i], codes, g + i, scale[i][0], minimum[i][0], scales[g + i], before, part[t]);
                        add<2>(weights[i], codes, g + i, scale[i][1], minimum[i][1], scales[g + i], last[g + i],
                               part[t]);
                    } else
                        add<0>(weights[i], codes, g + i, scale[i][0], minimum[i][0], scales[g + i], sums[g + i],
                               part[t]);
            }
        }
    }

    static inline void load_scales_of_step(const u8 *tile, int group, Lanes (&scale)[TOGETHER][2],
                                           Lanes (&minimum)[TOGETHER][2]) {
        if constexpr (TOGETHER == 2) {
            const auto both = load_half<2 * LANES>(Planes<F>(tile, simd::u32(group)).scales);
            scale[0][0] = simd::part<LANES, 0, float, 2 * LANES>(both);
            scale[1][0] = simd::part<LANES, LANES, float, 2 * LANES>(both);
        } else
            load_scales(Planes<F>(tile, simd::u32(group)), scale[0], minimum[0]);
    }

    template <int PART>
    static inline void add(const GroupCodes<F> &weights, const simd::RowCodes<ROWS, STEP> &codes, int group,
                           Lanes scale, Lanes minimum, vec<float, ROWS> row_scale, vec<int, ROWS> minus_sum,
                           Sums &part) {
        ARCMTP_UNROLL_ON_GPU
        for (int octet = 0; octet < ROWS / 8; ++octet) {
            part.add_products(8 * octet, weights.template dots<PART>(codes, group, octet, minus_sum), scale, row_scale);
            if constexpr (F::MINIMUM)
                part.add_outer(8 * octet, minimum,
                               vec<float, ROWS>(row_scale * simd::convert<float, int, ROWS>(-minus_sum)));
        }
    }
};

/// The same of F16, BF16 and F32 weights and float rows.
template <class T, int K, int ROWS, int TILES, int SLICES, int SHARED>
struct Patch<Plain<T>, K, ROWS, TILES, SLICES, SHARED> {
    using Sums = simd::RowSums<ROWS>;

    static inline void run(const PatchTiles<TILES> &tiles, const PatchRows<ROWS> &rows, Sums (&total)[TILES]) {
        ARCMTP_UNROLL_ON_GPU
        for (int t = 0; t < TILES; ++t)
            ARCMTP_UNROLL_ON_GPU
        for (int octet = 0; octet < ROWS / 8; ++octet)
            run_octet(tiles.at[t], rows, octet, total[t]);
    }

  private:
    static inline void run_octet(const u8 *tile, const PatchRows<ROWS> &rows, int octet, Sums &total) {
        auto row = [&](int r) {
            const float *x = rows.plain + simd::u64(simd::lane<int, ROWS>(rows.numbers, 8 * octet + r)) * K;
            return [x](int k) { return simd::load<float, 16>(x + k); };
        };
        Lanes sum[8];
        for (int slice = 0; slice < SLICES; ++slice) {
            Lanes part[8];
            TileSlice<Plain<T>, K, 8, SLICES>::run(tile, row, slice, part);
#pragma unroll
            for (int r = 0; r < 8; ++r)
                sum[r] = slice == 0 ? part[r] : Lanes(sum[r] + part[r]);
        }
#pragma unroll
        for (int r = 0; r < 8; ++r)
            total.set(8 * octet + r, sum[r]);
    }
};

/// to[column] = sums of row `row` for TILES * 16 columns, in stores as wide as they can be.
template <int TILES, class VALUE> inline void store_columns(float *to, const VALUE &value) {
    if constexpr (TILES == 4)
        simd::store<float, 64>(to, simd::join<float, 32>(simd::join<float, LANES>(value(0), value(1)),
                                                         simd::join<float, LANES>(value(2), value(3))));
    else if constexpr (TILES == 2)
        simd::store<float, 32>(to, simd::join<float, LANES>(value(0), value(1)));
    else
#pragma unroll
        for (int t = 0; t < TILES; ++t)
            simd::store<float, LANES>(to + t * LANES, value(t));
}

} // namespace arcmtp
