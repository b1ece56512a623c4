// The blocks of GGUF's quantised types, taken apart: what `repack.cpp` packs for the device.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

namespace arcmtp::blocks {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

constexpr int group_inputs = 32;

template <class Value> Value load(const void *from) {
    Value value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class Value> void store(u8 *to, Value value) { std::memcpy(to, &value, sizeof value); }

inline float float_of_half(u16 half) {
    const u32 sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;
    const u32 bits = rest >= 0x7c00u ? 0x7f800000u | rest << 13 : rest << 13;
    // The product rebases the exponent and so is right for subnormal halves, too.
    const float magnitude = rest >= 0x7c00u ? load<float>(&bits) : load<float>(&bits) * 0x1p112f;
    return sign ? -magnitude : magnitude;
}

// Whether bits are a number, neither NaN nor infinite: `exponent` are those that both have set.
template <class Bits> bool is_finite(Bits bits, Bits exponent) { return (bits & exponent) != exponent; }

// Rounds to the nearest half, ties to even; the magnitude is at most the largest half.
inline u16 half_of_float(float value) {
    const u32 sign = load<u32>(&value) >> 16 & 0x8000u;
    const float magnitude = std::fabs(value);
    if (magnitude < 0x1p-14f) { // a multiple of 2^-24: the sum leaves it in the low bits
        const float shifted = magnitude + 0.5f;
        return static_cast<u16>(sign | (load<u32>(&shifted) - 0x3f000000u));
    }
    const u32 bits = load<u32>(&magnitude) - 0x38000000u;
    return static_cast<u16>(sign | (bits + 0xfffu + (bits >> 13 & 1u)) >> 13);
}

enum class Scheme { group, group_min, exponent, super, super_min, super16, super16_min };

// One block of one row: a byte per code, inputs in order, and the scales as the device has them.
struct Block {
    u8 codes[256];
    u8 scales[16];
    u8 minimums[8];
    u16 d, m; // f16
};

// A type whose codes mean code - Zero.
template <int Inputs, int Bytes, int Bits, Scheme Form, int Zero> struct FileType {
    static constexpr int inputs = Inputs, bytes = Bytes, bits = Bits, divisor = 1;
    static constexpr Scheme scheme = Form;
    static float value(u8 code) { return static_cast<float>(code - Zero); }
};

// Low halves of the bytes, then their high halves.
template <int Count> void take_nibbles(const u8 *packed, u8 *codes) {
    for (int i = 0; i < Count; ++i) {
        codes[i] = packed[i] & 15;
        codes[Count + i] = packed[i] >> 4;
    }
}

// Adds bit i of the 32 bits at `packed` to code i, as its bit 4; eight codes at a time.
inline void take_fifth_bits(const u8 *packed, u8 *codes) {
    for (int i = 0; i < 4; ++i) {
        const u64 chosen = packed[i] * 0x0101010101010101u & 0x8040201008040201u; // byte j keeps bit j
        const u64 at_top = ((chosen & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu) | chosen;
        store(codes + 8 * i, load<u64>(codes + 8 * i) | (at_top & 0x8080808080808080u) >> 3);
    }
}

struct Q4_0 : FileType<32, 18, 4, Scheme::group, 8> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        take_nibbles<16>(file + 2, block.codes);
    }
};

struct Q4_1 : FileType<32, 20, 4, Scheme::group_min, 0> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        block.m = load<u16>(file + 2);
        take_nibbles<16>(file + 4, block.codes);
    }
};

struct Q5_0 : FileType<32, 22, 6, Scheme::group, 16> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        take_nibbles<16>(file + 6, block.codes);
        take_fifth_bits(file + 2, block.codes);
    }
};

struct Q5_1 : FileType<32, 24, 6, Scheme::group_min, 0> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        block.m = load<u16>(file + 2);
        take_nibbles<16>(file + 8, block.codes);
        take_fifth_bits(file + 4, block.codes);
    }
};

struct Q8_0 : FileType<32, 34, 8, Scheme::group, 128> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int i = 0; i < 32; ++i)
            block.codes[i] = file[2 + i] ^ 128;
    }
};

// The eight 6-bit scales and minimums of Q4_K and Q5_K; those of the last four groups are spread over two bytes.
inline void take_k_scales(const u8 *file, Block &block) {
    block.d = load<u16>(file);
    block.m = load<u16>(file + 2);
    const u8 *packed = file + 4;
    for (int i = 0; i < 4; ++i) {
        block.scales[i] = packed[i] & 63;
        block.minimums[i] = packed[i + 4] & 63;
        block.scales[i + 4] = (packed[i + 8] & 15) | packed[i] >> 6 << 4;
        block.minimums[i + 4] = packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4;
    }
}

struct Q4_K : FileType<256, 144, 4, Scheme::super_min, 0> {
    static void decode(const u8 *file, Block &block) {
        take_k_scales(file, block);
        for (int pair = 0; pair < 4; ++pair)
            take_nibbles<32>(file + 16 + 32 * pair, block.codes + 64 * pair);
    }
};

struct Q5_K : FileType<256, 176, 6, Scheme::super_min, 0> {
    static void decode(const u8 *file, Block &block) {
        take_k_scales(file, block);
        const u8 *high = file + 16;
        for (int pair = 0; pair < 4; ++pair)
            take_nibbles<32>(file + 48 + 32 * pair, block.codes + 64 * pair);
        for (int group = 0; group < 8; ++group)
            for (int i = 0; i < 32; ++i)
                block.codes[32 * group + i] |= (high[i] >> group & 1) << 4;
    }
};

struct Q6_K : FileType<256, 210, 6, Scheme::super16, 32> {
    static void decode(const u8 *file, Block &block) {
        for (int half = 0; half < 2; ++half) {
            u8 *codes = block.codes + 128 * half;
            const u8 *high = file + 128 + 32 * half;
            take_nibbles<64>(file + 64 * half, codes);
            for (int group = 0; group < 4; ++group)
                for (int i = 0; i < 32; ++i)
                    codes[32 * group + i] |= (high[i] >> 2 * group & 3) << 4;
        }
        std::memcpy(block.scales, file + 192, 16);
        block.d = load<u16>(file + 208);
    }
};

// What the codes from input `first` on are multiplied by, and what is then added.
template <class Type> std::pair<float, float> scale_and_minimum(const Block &block, int first) {
    const float d = float_of_half(block.d), m = float_of_half(block.m);
    const int group = first / group_inputs, half_group = first / 16;
    switch (Type::scheme) {
    case Scheme::group:
        return {d, 0.0f};
    case Scheme::group_min:
        return {d, m};
    case Scheme::exponent:
        return {std::ldexp(1.0f, block.scales[0] - 128), 0.0f};
    case Scheme::super:
        return {d / Type::divisor * static_cast<std::int8_t>(block.scales[group]), 0.0f};
    case Scheme::super_min:
        return {d * block.scales[group], -m * block.minimums[group]};
    case Scheme::super16:
        return {d / Type::divisor * static_cast<std::int8_t>(block.scales[half_group]), 0.0f};
    case Scheme::super16_min:
        return {d * static_cast<float>(block.scales[half_group] & 15),
                -m * static_cast<float>(block.scales[half_group] >> 4)};
    }
    return {};
}

template <class Type> void values_of(const Block &block, float *values) {
    for (int first = 0; first < Type::inputs; first += 16) {
        const auto [scale, minimum] = scale_and_minimum<Type>(block, first);
        for (int i = first; i < first + 16; ++i)
            values[i] = scale * Type::value(block.codes[i]) + minimum;
    }
}

// Types without codes; `Device` is what the tile holds.
template <class File, class DeviceValue> struct PlainType {
    using Stored = File;
    using Device = DeviceValue;
    static constexpr int inputs = 32, bytes = 32 * sizeof(File);
};

struct F32 : PlainType<u32, u32> {
    static constexpr u32 exponent = 0x7f800000u;
    static u32 device_bits(u32 bits) { return bits; }
    static float value(u32 bits) { return load<float>(&bits); }
};

struct F16 : PlainType<u16, u16> {
    static constexpr u16 exponent = 0x7c00u;
    static u16 device_bits(u16 bits) { return bits; }
    static float value(u16 bits) { return float_of_half(bits); }
};

struct BF16 : PlainType<u16, u16> {
    static constexpr u16 exponent = 0x7f80u;
    static u16 device_bits(u16 bits) { return bits; }
    static float value(u16 bits) { return F32::value(u32{bits} << 16); }
};

} // namespace arcmtp::blocks
