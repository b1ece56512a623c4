// The MoE router: residual add, RMS norm, logits over many work-groups, and SOFTMAX over the largest of them by the
// last one.
#pragma once

#include "mul_mat.hpp"
#include "norm.hpp"

namespace arcmtp {

/// The USED largest of EXPERTS logits (ties: lowest index), largest first, and their softmax.
template <int EXPERTS, int USED> inline void choose_experts(const float *logits, int *selected, float *weights) {
    static_assert(USED <= LANES);
    constexpr int WIDE = 32, VECTORS = (EXPERTS + WIDE - 1) / WIDE, LOWEST = -0x7fffffff - 1;
    using Ints = vec<int, WIDE>;
    Ints keys[VECTORS]; // order-preserving integers: even NaN rows choose experts that exist
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        const Ints bits = simd::bitcast<int, float, WIDE>(simd::load<float, WIDE>(logits + v * WIDE));
        keys[v] = bits ^ (bits >> 31 & 0x7fffffff);
        if constexpr (EXPERTS % WIDE)
            if (v == VECTORS - 1)
                keys[v] = simd::select<int, WIDE>(simd::iota<WIDE>() < EXPERTS % WIDE, keys[v], Ints(LOWEST));
    }
    Lanes chosen = 0.0f;
    for (int slot = 0; slot < USED; ++slot) {
        Ints best = keys[0];
#pragma unroll
        for (int v = 1; v < VECTORS; ++v)
            best = simd::max<int, WIDE>(best, keys[v]);
        const int key = simd::largest<int, WIDE>(best);
        Ints index = VECTORS * WIDE;
#pragma unroll
        for (int v = VECTORS - 1; v >= 0; --v)
            index = simd::select<int, WIDE>(keys[v] == key, simd::iota<WIDE>() + v * WIDE, index);
        const int expert = simd::smallest<int, WIDE>(index);
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
            keys[v] = simd::select<int, WIDE>(simd::iota<WIDE>() + v * WIDE == expert, Ints(LOWEST), keys[v]);
        const vec<int, LANES> bits = key ^ (key >> 31 & 0x7fffffff);
        chosen =
            simd::select<float, LANES>(simd::iota<LANES>() == slot, simd::bitcast<float, int, LANES>(bits), chosen);
        simd::store<int, 1>(selected + slot, vec<int, 1>(expert));
    }
    const Lanes powers = simd::exp<LANES>(Lanes(chosen - simd::lane<float, LANES>(chosen, 0)));
    const Lanes used = simd::select<float, LANES>(simd::iota<LANES>() < USED, powers, Lanes(0.0f));
    const Lanes shares = simd::divide<LANES>(used, Lanes(simd::sum<LANES>(used)));
    for (int slot = 0; slot < USED; ++slot)
        simd::store<float, 1>(weights + slot, vec<float, 1>(simd::lane<float, LANES>(shares, slot)));
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
    Lanes squares[PASS];
#pragma unroll
    for (int r = 0; r < PASS; ++r) {
        squares[r] = 0.0f;
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < GROUPS; ++i) {
            const int group = rank + i * TEAM;
            if (group >= K / 32)
                break;
            const vec<float, 32> sum = load_sum.template operator()<32>(r, group * 32);
            squares[r] = add_squares(sum, squares[r]);
            if constexpr (HELD)
                held[r * GROUPS + i] = sum;
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
            if (group >= K / 32)
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
    using Router = typename ROUTER::Format;
    using Gate = typename GATE::Format;
    const u8 *router_tile = router_weights + ROUTER::OFFSET + tile * tile_bytes<Router, K>();
    if (tile < ROUTER::TILES)
        multiply(reinterpret_cast<const typename Router::Value *>(router_tile));
    else
        multiply(reinterpret_cast<const typename Gate::Value *>(router_weights + GATE::OFFSET));
    if (tile == 0) {
        const RowSink<K, QUANTISED, PLAIN> sink{quantised, plain};
#pragma unroll
        for (int r = 0; r < PASS; ++r) {
            if (first + r >= rows)
                continue;
            ARCMTP_UNROLL_ON_GPU
            for (int i = 0; i < GROUPS; ++i) {
                const int group = rank + i * TEAM, at = group * 32;
                if (group >= K / 32)
                    break;
                const vec<float, 32> sum = sum_of.template operator()<32>(r, i, at);
                const vec<float, 32> normed =
                    sum * simd::lane<float, LANES>(scale, r) * simd::load<float, 32>(weight + at);
                simd::store<float, 32>(x_out + simd::u64(first + r) * K + at, sum);
                sink.put(first + r, group, simd::part<LANES, 0, float, 32>(normed),
                         simd::part<LANES, LANES, float, 32>(normed));
            }
        }
    }
    reduce_slices<TEAM, PASS, 1>(acc, [=](int r, Lanes(&value)[1]) {
        simd::store<float, LANES>(logits + simd::u64(first + r) * STRIDE + tile * LANES, value[0]);
    });
    if (!simd::last_arrival<TEAM>(counters + pass, TILES))
        return;
    for (int row = first + rank; row < first + PASS && row < rows; row += TEAM) {
        const float *row_logits = logits + simd::u64(row) * STRIDE;
        float *row_weights = slot_weights + row * (USED + 1);
        choose_experts<EXPERTS, USED>(row_logits, selected + row * USED, row_weights);
        const Lanes gate = simd::sigmoid<LANES>(simd::load<float, LANES>(row_logits + ROUTER::TILES * LANES));
        simd::store<float, 1>(row_weights + USED, vec<float, 1>(simd::lane<float, LANES>(gate, 0)));
    }
}

} // namespace arcmtp
