// The blocks of GGUF's types whose codes are places in a list of levels (docs/design.md has the lists).
#pragma once

#include "iq_grids.hpp"
#include "repack_blocks.hpp"

#include <array>
#include <cstddef>

namespace arcmtp::blocks {

// A type whose codes mean Levels[code] / Divisor.
template <int Inputs, int Bytes, int Bits, Scheme Form, const std::int8_t (&Levels)[1 << Bits], int Divisor = 1>
struct CodedType : FileType<Inputs, Bytes, Bits, Form, 0> {
    static constexpr int divisor = Divisor;
    static float value(u8 code) { return Levels[code]; }
};

constexpr std::int8_t iq4_levels[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr std::int8_t e2m1_levels[] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr std::int8_t iq3_s_levels[] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};
constexpr std::int8_t iq3_xxs_levels[] = {2, 6, 10, 14, 18, 22, 26, 31, -2, -6, -10, -14, -18, -22, -26, -31};
constexpr std::int8_t q3_levels[] = {-4, -3, -2, -1, 0, 1, 2, 3};
constexpr std::int8_t iq2_levels[] = {8, 25, 43, 0, -8, -25, -43, 0};
constexpr std::int8_t iq1_levels[] = {-7, 1, 9, 0, -9, -1, 7, 0};

struct IQ4_NL : CodedType<32, 18, 4, Scheme::group, iq4_levels> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        take_nibbles<16>(file + 2, block.codes);
    }
};

struct IQ4_XS : CodedType<256, 136, 4, Scheme::super, iq4_levels> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        const u16 high = load<u16>(file + 2);
        for (int group = 0; group < 8; ++group) {
            const int low = file[4 + group / 2] >> 4 * (group % 2) & 15;
            block.scales[group] = static_cast<u8>((low | (high >> 2 * group & 3) << 4) - 32);
            take_nibbles<16>(file + 8 + 16 * group, block.codes + 32 * group);
        }
    }
};

struct MXFP4 : CodedType<32, 17, 4, Scheme::exponent, e2m1_levels> {
    static void decode(const u8 *file, Block &block) {
        block.scales[0] = file[0];
        take_nibbles<16>(file + 1, block.codes);
    }
};

struct Q3_K : CodedType<256, 110, 3, Scheme::super16, q3_levels> {
    static void decode(const u8 *file, Block &block) {
        const u8 *pairs = file + 32, *scales = file + 96;
        for (int group = 0; group < 8; ++group)
            for (int i = 0; i < 32; ++i)
                block.codes[32 * group + i] =
                    (pairs[group / 4 * 32 + i] >> 2 * (group % 4) & 3) | (file[i] >> group & 1) << 2;
        for (int i = 0; i < 16; ++i) {
            const int low = scales[i % 8] >> 4 * (i / 8) & 15, high = scales[8 + i % 4] >> 2 * (i / 4) & 3;
            block.scales[i] = static_cast<u8>((low | high << 4) - 32);
        }
        block.d = load<u16>(file + 108);
    }
};

struct Q2_K : FileType<256, 84, 2, Scheme::super16_min, 0> {
    static void decode(const u8 *file, Block &block) {
        std::memcpy(block.scales, file, 16);
        for (int group = 0; group < 8; ++group)
            for (int i = 0; i < 32; ++i)
                block.codes[32 * group + i] = file[16 + group / 4 * 32 + i] >> 2 * (group % 4) & 3;
        block.d = load<u16>(file + 80);
        block.m = load<u16>(file + 82);
    }
};

// -1, 0, 1, 2 as they are stored: 0 to 3.
struct Q2_0 : FileType<64, 18, 2, Scheme::group, 1> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int i = 0; i < 64; ++i)
            block.codes[i] = file[2 + i / 4] >> 2 * (i % 4) & 3;
    }
};

// -1 and 1 as the codes 0 and 2.
struct Q1_0 : FileType<128, 18, 2, Scheme::group, 1> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int i = 0; i < 128; ++i)
            block.codes[i] = (file[2 + i / 8] >> i % 8 & 1) << 1;
    }
};

// -1, 0, 1 as the codes 0, 1, 2 of Q2_K: d * 1 * code - d * 1.
inline void set_ternary_scales(u16 d, Block &block) {
    std::memset(block.scales, 1 | 1 << 4, 16);
    block.d = block.m = d;
}

struct TQ2_0 : FileType<256, 66, 2, Scheme::super16_min, 0> {
    static void decode(const u8 *file, Block &block) {
        for (int group = 0; group < 8; ++group)
            for (int i = 0; i < 32; ++i)
                block.codes[32 * group + i] = file[group / 4 * 32 + i] >> 2 * (group % 4) & 3;
        set_ternary_scales(load<u16>(file + 64), block);
    }
};

// Five digits of base 3 in a byte, as a fraction of 256: the next digit is what a product with 3 carries out.
struct TQ1_0 : FileType<256, 54, 2, Scheme::super16_min, 0> {
    static void decode(const u8 *file, Block &block) {
        u8 *codes = block.codes;
        codes = take_digits<32, 5>(file, codes);
        codes = take_digits<16, 5>(file + 32, codes);
        take_digits<4, 4>(file + 48, codes);
        set_ternary_scales(load<u16>(file + 52), block);
    }

  private:
    template <int Count, int Digits> static u8 *take_digits(const u8 *from, u8 *codes) {
        for (int power = 1, digit = 0; digit < Digits; ++digit, power *= 3)
            for (int i = 0; i < Count; ++i)
                *codes++ = static_cast<u8>(from[i] * power % 256 * 3 >> 8);
        return codes;
    }
};

// A byte for each magnitude of each row of a grid.
template <int Bits, int Rows, class Bytes> constexpr std::array<Bytes, Rows> spread(const std::uint16_t (&grid)[Rows]) {
    std::array<Bytes, Rows> rows{};
    for (int row = 0; row < Rows; ++row)
        for (std::size_t i = 0; i < sizeof(Bytes); ++i)
            rows[row] |= static_cast<Bytes>(grid[row] >> Bits * i & ((1 << Bits) - 1)) << 8 * i;
    return rows;
}
constexpr auto iq2_xxs_rows = spread<2, 256, u64>(iq2_xxs_grid);
constexpr auto iq2_xs_rows = spread<2, 512, u64>(iq2_xs_grid);
constexpr auto iq2_s_rows = spread<2, 1024, u64>(iq2_s_grid);
constexpr auto iq3_xxs_rows = spread<3, 256, u32>(iq3_xxs_grid);
constexpr auto iq3_s_rows = spread<3, 512, u32>(iq3_s_grid);
constexpr auto iq1_rows = spread<2, 2048, u64>(iq1_grid);

// Bit i of `signs` as bit Place of byte i.
template <int Place> u64 sign_bytes(u8 signs) {
    const u64 chosen = signs * 0x0101010101010101u & 0x8040201008040201u; // byte j keeps bit j
    const u64 at_top = ((chosen & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu) | chosen;
    return (at_top & 0x8080808080808080u) >> (7 - Place);
}

// Eight signs of which seven bits are stored: the number of minuses is even.
inline u8 even_signs(u32 seven) {
    const u32 four = seven ^ seven >> 4, two = four ^ four >> 2;
    return static_cast<u8>(seven | ((two ^ two >> 1) & 1) << 7);
}

// Scales 2 s + 1 of the 4-bit s of each 16 or 32 inputs, the first in the low half of a byte.
template <int Count> void take_odd_scales(const u8 *packed, Block &block) {
    for (int i = 0; i < Count; ++i)
        block.scales[i] = 2 * (packed[i / 2] >> 4 * (i % 2) & 15) + 1;
}

struct IQ2_XXS : CodedType<256, 66, 3, Scheme::super, iq2_levels, 8> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int group = 0; group < 8; ++group) {
            const u8 *places = file + 2 + 8 * group;
            const u32 rest = load<u32>(places + 4); // four times seven signs, and the scale
            block.scales[group] = static_cast<u8>(2 * (rest >> 28) + 1);
            for (int i = 0; i < 4; ++i)
                store(block.codes + 32 * group + 8 * i,
                      iq2_xxs_rows[places[i]] | sign_bytes<2>(even_signs(rest >> 7 * i & 127)));
        }
    }
};

struct IQ2_XS : CodedType<256, 74, 3, Scheme::super16, iq2_levels, 8> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int i = 0; i < 32; ++i) {
            const u16 both = load<u16>(file + 2 + 2 * i);
            store(block.codes + 8 * i, iq2_xs_rows[both & 511] | sign_bytes<2>(even_signs(both >> 9)));
        }
        take_odd_scales<16>(file + 66, block);
    }
};

struct IQ2_S : CodedType<256, 82, 3, Scheme::super16, iq2_levels, 8> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int i = 0; i < 32; ++i) {
            const int place = file[2 + i] | (file[66 + i / 4] >> 2 * (i % 4) & 3) << 8;
            store(block.codes + 8 * i, iq2_s_rows[place] | sign_bytes<2>(file[34 + i]));
        }
        take_odd_scales<16>(file + 74, block);
    }
};

struct IQ3_XXS : CodedType<256, 98, 4, Scheme::super, iq3_xxs_levels, 2> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int group = 0; group < 8; ++group) {
            const u8 *places = file + 2 + 8 * group;
            const u32 rest = load<u32>(file + 66 + 4 * group);
            block.scales[group] = static_cast<u8>(2 * (rest >> 28) + 1);
            for (int i = 0; i < 4; ++i) {
                const u64 rows = iq3_xxs_rows[places[2 * i]] | u64{iq3_xxs_rows[places[2 * i + 1]]} << 32;
                store(block.codes + 32 * group + 8 * i, rows | sign_bytes<3>(even_signs(rest >> 7 * i & 127)));
            }
        }
    }
};

struct IQ3_S : CodedType<256, 110, 4, Scheme::super, iq3_s_levels> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        const auto row = [&](int i) { return u64{iq3_s_rows[file[2 + i] | (file[66 + i / 8] >> i % 8 & 1) << 8]}; };
        for (int i = 0; i < 32; ++i)
            store(block.codes + 8 * i, row(2 * i) | row(2 * i + 1) << 32 | sign_bytes<3>(file[74 + i]));
        take_odd_scales<8>(file + 106, block);
    }
};

// The shift of eight values, down if it is one, as a code's bit 2.
inline u64 shift_bytes(int down) { return down ? 0x0404040404040404u : 0; }

struct IQ1_S : CodedType<256, 50, 3, Scheme::super, iq1_levels, 8> {
    static void decode(const u8 *file, Block &block) {
        block.d = load<u16>(file);
        for (int group = 0; group < 8; ++group) {
            const u16 rest = load<u16>(file + 34 + 2 * group);
            block.scales[group] = 2 * (rest >> 12 & 7) + 1;
            for (int i = 0; i < 4; ++i)
                store(block.codes + 32 * group + 8 * i,
                      iq1_rows[file[2 + 4 * group + i] | (rest >> 3 * i & 7) << 8] | shift_bytes(rest >> 15));
        }
    }
};

struct IQ1_M : CodedType<256, 56, 3, Scheme::super16, iq1_levels, 8> {
    static void decode(const u8 *file, Block &block) {
        block.d = 0;
        for (int i = 0; i < 4; ++i) {
            const u16 rest = load<u16>(file + 48 + 2 * i); // four scales of 3 bits, and a quarter of d
            block.d |= rest >> 12 << 4 * i;
            for (int scale = 0; scale < 4; ++scale)
                block.scales[4 * i + scale] = 2 * (rest >> 3 * scale & 7) + 1;
        }
        for (int i = 0; i < 32; ++i) {
            const int rest = file[32 + i / 2] >> 4 * (i % 2);
            store(block.codes + 8 * i, iq1_rows[file[i] | (rest & 7) << 8] | shift_bytes(rest & 8));
        }
    }
};

} // namespace arcmtp::blocks
