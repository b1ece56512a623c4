// The MoE router: residual add, RMS norm, logits over many work-groups, and SOFTMAX over the largest of them by the
// last one.
#pragma once

#include "mul_mat.hpp"
#include "norm.hpp"

namespace arcmtp {

/// The USED largest of EXPERTS logits (ties: lowest index), largest first, and their softmax.
template <int EXPERTS, int USED> inline void choose_experts(const float *logits, int *selected, float *weights) {
    static_assert(USED <= LANES);
    constexpr int VECTORS = (EXPERTS + LANES - 1) / LANES, LOWEST = -0x7fffffff - 1;
    vec<int, LANES> keys[VECTORS]; // order-preserving integers: even NaN rows choose experts that exist
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        const vec<int, LANES> bits = simd::bitcast<int, float, LANES>(simd::load<float, LANES>(logits + v * LANES));
        keys[v] = bits ^ (bits >> 31 & 0x7fffffff);
        if constexpr (EXPERTS % LANES)
            if (v == VECTORS - 1)
                keys[v] =
                    simd::select<int, LANES>(simd::iota<LANES>() < EXPERTS % LANES, keys[v], vec<int, LANES>(LOWEST));
    }
    Lanes chosen = 0.0f;
    for (int slot = 0; slot < USED; ++slot) {
        vec<int, LANES> best = keys[0];
#pragma unroll
        for (int v = 1; v < VECTORS; ++v)
            best = simd::max<int, LANES>(best, keys[v]);
        const int key = simd::largest<int, LANES>(best);
        vec<int, LANES> index = VECTORS * LANES;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
            index =
                simd::min<int, LANES>(index, simd::select<int, LANES>(keys[v] == key, simd::iota<LANES>() + v * LANES,
                                                                      vec<int, LANES>(VECTORS * LANES)));
        const int expert = simd::smallest<int, LANES>(index);
#pragma unroll
        for (int v = 0; v < VECTORS; ++v)
            keys[v] =
                simd::select<int, LANES>(simd::iota<LANES>() + v * LANES == expert, vec<int, LANES>(LOWEST), keys[v]);
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
    auto sum_at = [=](int r, int k) {
        const simd::u64 at = simd::u64(first + r) * K + k;
        return Lanes(simd::load<float, LANES>(x + at) + simd::load<float, LANES>(y + at));
    };
    float scale[PASS];
#pragma unroll
    for (int r = 0; r < PASS; ++r) {
        Lanes squares = 0.0f;
        for (int v = rank; v < K / LANES; v += TEAM) {
            const Lanes value = sum_at(r, v * LANES);
            squares = simd::fma<float, LANES>(value, value, squares);
        }
        scale[r] = inverse_rms<K, TEAM>(squares, eps);
    }
    if (tile == 0) {
        const RowSink<K, QUANTISED, PLAIN> sink{quantised, plain};
#pragma unroll
        for (int r = 0; r < PASS; ++r) {
            if (first + r >= rows)
                continue;
            for (int group = rank; group < K / 32; group += TEAM) {
                const int at = group * 32;
                const Lanes low = sum_at(r, at), high = sum_at(r, at + LANES);
                simd::store<float, LANES>(x_out + simd::u64(first + r) * K + at, low);
                simd::store<float, LANES>(x_out + simd::u64(first + r) * K + at + LANES, high);
                sink.put(first + r, group, low * scale[r] * simd::load<float, LANES>(weight + at),
                         high * scale[r] * simd::load<float, LANES>(weight + at + LANES));
            }
        }
    }
    Lanes acc[PASS];
    auto normed = [&](int r) {
        return [=, s = scale[r]](int k) { return Lanes(sum_at(r, k) * s * simd::load<float, LANES>(weight + k)); };
    };
    if (tile < ROUTER::TILES)
        TileSlice<typename ROUTER::Format, K, PASS, TEAM>::run(
            router_weights + ROUTER::OFFSET + tile * tile_bytes<typename ROUTER::Format, K>(), normed, rank, acc);
    else
        TileSlice<typename GATE::Format, K, PASS, TEAM>::run(router_weights + GATE::OFFSET, normed, rank, acc);
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
