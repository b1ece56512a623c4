// dpas: 8 channels deep, rows of int8 activations times unsigned weights of 2, 4 or 8 bits, 16 columns.
#include "handlers.hpp"
#include "thread.hpp"

namespace xe2 {
namespace {

constexpr int DEPTH = 32; // inputs: 8 channels deep, 4 a channel

/// Weights lie packed in 32-bit words, a column a lane, further ones in the next register; each row of activations is
/// 32 bytes. Source: vISA documentation, DPAS, with four operations a channel.
template <int BITS> const Instruction *multiply(Thread &t, const Instruction *in) {
    alignas(64) std::int8_t weights[DEPTH / 4][LANES][4];
    const std::uint8_t *words = t.bytes + in->source[1].offset;
    constexpr int PER_WORD = 32 / BITS;
    for (int k = 0; k < DEPTH; ++k)
        for (int lane = 0; lane < LANES; ++lane) {
            const auto word = peek<std::uint32_t>(words + k / PER_WORD * REGISTER + 4 * lane);
            weights[k / 4][lane][k % 4] = std::int8_t(word >> (k % PER_WORD * BITS) & ((1u << BITS) - 1));
        }
    Ints sums[8];
    for (int row = 0; row < in->rows; ++row) {
        Ints sum = in->source[0].offset == NULL_REGISTER ? Ints{}
                                                         : peek<Ints>(t.bytes + in->source[0].offset + row * REGISTER);
        const std::uint8_t *activations = t.bytes + in->source[2].offset + row * DEPTH;
        for (int quad = 0; quad < DEPTH / 4; ++quad)
            for (int i = 0; i < 4; ++i) {
                const auto activation = std::int32_t(std::int8_t(activations[4 * quad + i]));
                for (int lane = 0; lane < LANES; ++lane)
                    sum[lane] += std::int32_t(std::uint8_t(weights[quad][lane][i])) * activation;
            }
        sums[row] = sum;
    }
    for (int row = 0; row < in->rows; ++row)
        poke(t.bytes + in->target.offset + row * REGISTER, sums[row]);
    return in + 1;
}

} // namespace

Handler dpas_handler(const Instruction &in) {
    if (in.lanes != LANES || in.rows < 1 || in.rows > 8 || in.predicated)
        return nullptr;
    return in.weight_bits == 2   ? multiply<2>
           : in.weight_bits == 4 ? multiply<4>
           : in.weight_bits == 8 ? multiply<8>
                                 : nullptr;
}

} // namespace xe2
