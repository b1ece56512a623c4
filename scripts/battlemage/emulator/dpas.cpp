// dpas: 8 channels deep, rows of int8 activations times weights of 2, 4 or 8 bits, 16 columns.
#include "handlers.hpp"
#include "thread.hpp"

namespace xe2 {
namespace {

constexpr int DEPTH = 32; // inputs: 8 channels deep, 4 a channel

/// Weights lie packed in 32-bit words, a column a lane, further ones in the next register; each row of activations is
/// 32 bytes. Source: vISA documentation, DPAS, with four operations a channel.
template <int BITS, bool SIGNED> const Instruction *multiply(Thread &t, const Instruction *in) {
    constexpr int PER_WORD = 32 / BITS;
    const std::uint8_t *const words = t.bytes + in->source[1].offset;
    const std::uint8_t *const activations = t.bytes + in->source[2].offset;
    Ints sums[8];
    for (int row = 0; row < in->rows; ++row)
        sums[row] =
            in->source[0].form == Form::NONE ? Ints{} : peek<Ints>(t.bytes + in->source[0].offset + row * REGISTER);
    for (int k = 0; k < DEPTH; ++k) {
        const auto packed = peek<Lanes<std::uint32_t>>(words + k / PER_WORD * REGISTER);
        const auto highest = packed << (32 - BITS - k % PER_WORD * BITS);
        const Ints weights = SIGNED ? Ints(highest) >> (32 - BITS) : Ints(highest >> (32 - BITS));
        for (int row = 0; row < in->rows; ++row)
            sums[row] += weights * std::int32_t(std::int8_t(activations[row * DEPTH + k]));
    }
    for (int row = 0; row < in->rows; ++row)
        poke(t.bytes + in->target.offset + row * REGISTER, sums[row]);
    return in + 1;
}

} // namespace

Handler dpas_handler(const Instruction &in) {
    if (in.lanes != LANES || in.rows < 1 || in.rows > 8 || in.predicated)
        return nullptr;
    if (in.signed_weights)
        return in.weight_bits == 4 ? multiply<4, true> : multiply<8, true>;
    return in.weight_bits == 2   ? multiply<2, false>
           : in.weight_bits == 4 ? multiply<4, false>
           : in.weight_bits == 8 ? multiply<8, false>
                                 : nullptr;
}

} // namespace xe2
