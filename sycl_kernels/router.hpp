// The MoE router: residual add, RMS norm, logits over many work-groups, and SOFTMAX over the largest of them by the
// last one.
#pragma once

#include "expert_choice.hpp"
#include "mul_mat.hpp"

namespace arcmtp {

/// What rows first … first + PASS - 1 choose, by the last work-group: of few rows the whole team ranks each one's
/// experts, of more a thread chooses for each.
template <int EXPERTS, int USED, int PASS, int TEAM>
inline void choose_rows(const float *logits, int stride, int first, int rows, int *selected, float *slot_weights) {
    constexpr bool MAY_SHARE = PASS <= 4 && TEAM >= 2 * PASS; // more rows are as fast by a thread each
    using Choice = TeamChoice<EXPERTS, USED, TEAM, MAY_SHARE ? PASS : 1>;
    constexpr bool TOGETHER = MAY_SHARE && Choice::BYTES <= TEAM * LANES * 4;
    const int rank = simd::team_rank();
    if constexpr (TOGETHER) {
        Choice::rank_all(logits + first * stride, stride);
        simd::team_barrier<TEAM>();
        Choice::rank_best();
        simd::team_barrier<TEAM>();
    }
    constexpr int GATES = TOGETHER ? PASS : 0; // the first thread that does gates: beside those that finish rows
    for (int r = rank; r < PASS && first + r < rows; r += TEAM) {
        const int row = first + r;
        float *weights = slot_weights + row * (USED + 1);
        if constexpr (TOGETHER)
            Choice::choose(r, selected + row * USED, weights);
        else
            choose_experts<EXPERTS, USED>(logits + row * stride, selected + row * USED, weights);
    }
    for (int r = rank - GATES; r < PASS && first + r < rows; r += TEAM) {
        if (r < 0)
            continue;
        const float *gate = logits + (first + r + 1) * stride - LANES;
        const Lanes share = simd::sigmoid<LANES>(simd::load<float, LANES>(gate));
        simd::store<float, 1>(slot_weights + (first + r) * (USED + 1) + USED,
                              vec<float, 1>(simd::lane<float, LANES>(share, 0)));
    }
}

/// Rows first … first + PASS - 1 of: sum = x + y; x_out = sum; norm(sum) * weight to a RowSink; its logits by router
/// and shared gate; per row the experts `selected` [rows][USED] and `slot_weights` [rows][USED + 1], the shared gate's
/// sigmoid last. A work-group per tile of outputs and pass of PASS rows; PASS divides what x, y and logits hold.
template <int K, int EXPERTS, int USED, int ROWS, int PASS, int TEAM, bool QUANTISED, bool PLAIN, class ROUTER,
          class GATE>
inline void router(const float *x, const float *y, float *x_out, const float *weight, float eps,
                   const u8 *router_weights, float *logits, int *counters, int *selected, float *slot_weights,
                   u8 *quantised, float *plain, const int *row_count) {
    constexpr int TILES = ROUTER::TILES + 1, STRIDE = TILES * LANES;
    simd::reserve_team_memory<TEAM * PASS * LANES * 4>();
    const int pass = simd::group_index() / TILES, tile = simd::group_index() % TILES, rank = simd::team_rank();
    const int rows = ROWS > 0 ? ROWS : row_count[0], first = pass * PASS;
    if (first >= rows)
        return;
    constexpr int GROUPS = (K / 32 + TEAM - 1) / TEAM; // of 32 inputs, of a thread
    constexpr int WIDE = simd::INPUTS, PARTS = WIDE / LANES;
    constexpr bool HELD = WIDE == 32 && PASS * GROUPS <= 16; // in registers; else they are read again
    vec<float, 32> held[HELD ? PASS * GROUPS : 1];
    auto load_sum = [=]<int N>(int r, int at) {
        const simd::u64 place = simd::u64(first + r) * K + at;
        return vec<float, N>(simd::load<float, N>(x + place) + simd::load<float, N>(y + place));
    };
    auto sum_of = [&]<int N>(int r, int i, int at) {
        if constexpr (HELD)
            return held[r * GROUPS + i];
        else
            return load_sum.template operator()<N>(r, at);
    };
    using Router = typename ROUTER::Format;
    using Gate = typename GATE::Format;
    const u8 *tile_weights =
        router_weights + (tile < ROUTER::TILES ? ROUTER::OFFSET + tile * tile_bytes<Router, K>() : GATE::OFFSET);
    constexpr bool ALIKE = std::is_same_v<Router, Gate>;
    if constexpr (HELD && ROWS > 0 && ALIKE) { // while the squares are waited for; a chunk's weights lie in caches
        constexpr int BYTES = 32 * LANES * int(sizeof(typename Router::Value));
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < GROUPS; ++i)
            if (const int group = rank + i * TEAM; !beyond<K, TEAM>(group)) {
                simd::prefetch<BYTES>(tile_weights + group * BYTES);
                simd::prefetch<128>(weight + group * 32);
            }
    }
    if constexpr (HELD) { // all are asked for before any is waited for
        vec<float, 32> added[PASS * GROUPS];
        ARCMTP_UNROLL_ON_GPU
        for (int item = 0; item < PASS * GROUPS; ++item) {
            const int group = rank + item % GROUPS * TEAM;
            if (beyond<K, TEAM>(group))
                continue;
            const simd::u64 place = simd::u64(first + item / GROUPS) * K + group * 32;
            held[item] = simd::load<float, 32>(x + place);
            added[item] = simd::load<float, 32>(y + place);
        }
        ARCMTP_UNROLL_ON_GPU
        for (int item = 0; item < PASS * GROUPS; ++item)
            held[item] += added[item];
    }
    Lanes squares[PASS];
#pragma unroll
    for (int r = 0; r < PASS; ++r) {
        squares[r] = 0.0f;
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < GROUPS; ++i) {
            const int group = rank + i * TEAM;
            if (beyond<K, TEAM>(group))
                break;
            squares[r] = add_squares(sum_of.template operator()<32>(r, i, group * 32), squares[r]);
        }
    }
    const Lanes scale = inverse_rms<K, TEAM, PASS>(squares, eps);
    Lanes acc[PASS];
#pragma unroll
    for (int r = 0; r < PASS; ++r)
        acc[r] = 0.0f;
    auto multiply = [&](auto *weights) {
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < GROUPS; ++i) {
            const int group = rank + i * TEAM;
            if (beyond<K, TEAM>(group))
                break;
            for (int at = group * 32; at < group * 32 + 32; at += WIDE) {
                stream_inputs<PARTS>(weights + at * LANES);
                const vec<float, WIDE> norm_weights = simd::load<float, WIDE>(weight + at);
                Lanes normed[PARTS][PASS];
#pragma unroll
                for (int r = 0; r < PASS; ++r) {
                    const vec<float, WIDE> all =
                        sum_of.template operator()<WIDE>(r, i, at) * simd::lane<float, LANES>(scale, r) * norm_weights;
                    normed[0][r] = simd::part<LANES, 0, float, WIDE>(all);
                    normed[PARTS - 1][r] = simd::part<LANES, WIDE - LANES, float, WIDE>(all);
                }
#pragma unroll
                for (int part = 0; part < PARTS; ++part)
                    add_inputs(weights + (at + part * LANES) * LANES, normed[part], acc);
            }
        }
    };
    if constexpr (ALIKE)
        multiply(reinterpret_cast<const typename Router::Value *>(tile_weights));
    else if (tile < ROUTER::TILES)
        multiply(reinterpret_cast<const typename Router::Value *>(tile_weights));
    else
        multiply(reinterpret_cast<const typename Gate::Value *>(tile_weights));
    constexpr bool BY_ROW = PASS > 1 || TEAM == 1; // how work-groups share what one of them would end late with
    const RowSink<K, QUANTISED, PLAIN> sink{quantised, plain};
#pragma unroll
    for (int r = 0; r < PASS; ++r) {
        if (first + r >= rows || (BY_ROW && r % TILES != tile))
            continue;
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < GROUPS; ++i) {
            const int group = rank + i * TEAM, at = group * 32;
            if (beyond<K, TEAM>(group))
                break;
            if (!BY_ROW && i % TILES != tile)
                continue;
            const vec<float, 32> sum = sum_of.template operator()<32>(r, i, at);
            const vec<float, 32> normed = sum * simd::lane<float, LANES>(scale, r) * simd::load<float, 32>(weight + at);
            simd::store<float, 32>(x_out + simd::u64(first + r) * K + at, sum);
            sink.put(first + r, group, simd::part<LANES, 0, float, 32>(normed),
                     simd::part<LANES, LANES, float, 32>(normed));
        }
    }
    reduce_slices<TEAM, PASS, 1>(acc, [=](int r, Lanes(&value)[1]) {
        simd::store<float, LANES>(logits + simd::u64(first + r) * STRIDE + tile * LANES, value[0]);
    });
    if (!simd::last_arrival<TEAM>(counters + pass, TILES))
        return;
    choose_rows<EXPERTS, USED, PASS, TEAM>(logits, STRIDE, first, rows, selected, slot_weights);
}

} // namespace arcmtp
