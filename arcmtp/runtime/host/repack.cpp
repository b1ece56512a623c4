// From a GGUF file's rows to the device weight formats of docs/design.md, in two steps that meet in `Block`: every file
// type takes its blocks apart, every device format packs 16 of them, one per lane. `tests/formats/packing.py` is the
// reference, which tests compare byte for byte.
#include "repack.hpp"
#include "repack_blocks.hpp"
#include "repack_int4.hpp"
#include "repack_iq.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace arcmtp {
namespace {

using namespace blocks;
using int4::Lanes;
using int4::SquareSums;

constexpr int tile_lanes = 16;

// A row's bytes in the file are `stride` apart; `lanes` of the tile's 16 outputs exist.
struct TileRows {
    const u8 *first;
    std::ptrdiff_t stride;
    int lanes;
    int k;
};

// The low nibbles of eight bytes, the first lowest.
u32 squeeze_nibbles(u64 bytes) {
    bytes &= 0x0f0f0f0f0f0f0f0fu;
    bytes = (bytes | bytes >> 4) & 0x00ff00ff00ff00ffu;
    bytes = (bytes | bytes >> 8) & 0x0000ffff0000ffffu;
    return static_cast<u32>(bytes | bytes >> 16);
}

// Bits 0 and 1 of eight bytes, the first lowest.
u32 squeeze_pairs(u64 bytes) {
    bytes &= 0x0303030303030303u;
    bytes = (bytes | bytes >> 6) & 0x000f000f000f000fu;
    bytes = (bytes | bytes >> 12) & 0x000000ff000000ffu;
    return static_cast<u32>(bytes | bytes >> 24) & 0xffffu;
}

// Groups of 32 inputs whose planes lie together, and the bytes of their scales.
constexpr int span_groups(Scheme scheme) {
    return scheme == Scheme::group || scheme == Scheme::group_min ? 2 : scheme == Scheme::exponent ? 4 : 8;
}
constexpr int scale_bytes(Scheme scheme) {
    switch (scheme) {
    case Scheme::group:
        return 2 * 32;
    case Scheme::group_min:
        return 2 * 64;
    case Scheme::exponent:
        return 4 * 16;
    case Scheme::super:
        return 8 * 16 + 32;
    case Scheme::super16:
        return 8 * 32 + 32;
    default:
        return 8 * 32 + 64;
    }
}

// Where a tile in the device format of `Type` has its planes: those of a span of groups lie together.
template <class Type> struct Spans {
    static constexpr int groups = span_groups(Type::scheme);
    static constexpr int low_bytes = (Type::bits == 6 ? 4 : Type::bits) * 64; // of one group
    static constexpr int code_bytes = groups * 64 * Type::bits;
    static constexpr int bytes = code_bytes + scale_bytes(Type::scheme);

    static std::size_t tile_bytes(int k) { return (k / group_inputs + groups - 1) / groups * std::size_t{bytes}; }
    static u8 *low(u8 *tile, int group) { return tile + group / groups * bytes + group % groups * low_bytes; }
    static u8 *high(u8 *tile, int group) {
        return tile + group / groups * bytes + groups * low_bytes + group % groups * 128;
    }
    static u8 *scales(u8 *tile, int group) { return tile + group / groups * bytes + code_bytes; }

    // Zeros where the last span has a group that the matrix lacks.
    static void clear_rest(u8 *tile, int k) {
        if (const int last = k / group_inputs; last % groups != 0)
            std::memset(tile + last / groups * bytes, 0, bytes);
    }
};

// Groups packed from the current blocks go to group `group` of the tile.
template <class Type> class TileWriter {
  public:
    TileWriter(u8 *tile, int k) : tile_(tile) { Layout::clear_rest(tile, k); }

    void write(const std::array<Block, tile_lanes> &blocks, int block_index) {
        constexpr int groups = Type::inputs / group_inputs;
        for (int i = 0; i < groups; ++i) {
            const int group = block_index * groups + i;
            for (int lane = 0; lane < tile_lanes; ++lane)
                write_codes(blocks[lane].codes + group_inputs * i, group, lane);
        }
        for (int lane = 0; lane < tile_lanes; ++lane)
            write_scales(blocks[lane], block_index, lane);
    }

  private:
    using Layout = Spans<Type>;
    static constexpr int words = Layout::low_bytes / 64;

    void write_codes(const u8 *codes, int group, int lane) {
        u8 *low = Layout::low(tile_, group) + 4 * lane;
        for (int r = 0; r < words; ++r)
            if constexpr (Type::bits == 8)
                store(low + 64 * r, load<u32>(codes + 4 * r));
            else if constexpr (Type::bits == 3)
                store(low + 64 * r, bit_plane(codes, r));
            else if constexpr (Type::bits == 2)
                store(low + 64 * r, pairs(codes + 16 * r, 0));
            else
                store(low + 64 * r, squeeze_nibbles(load<u64>(codes + 8 * r)));
        if constexpr (Type::bits == 6)
            for (int r = 0; r < 2; ++r)
                store(Layout::high(tile_, group) + 64 * r + 4 * lane, pairs(codes + 16 * r, 4));
    }

    // Bits `bit` and `bit` + 1 of sixteen codes.
    static u32 pairs(const u8 *codes, int bit) {
        return squeeze_pairs(load<u64>(codes) >> bit) | squeeze_pairs(load<u64>(codes + 8) >> bit) << 16;
    }

    // Bit `bit` of the 32 codes of a group: input 8r + i's in bit 4i + r.
    static u32 bit_plane(const u8 *codes, int bit) {
        u32 plane = 0;
        for (int r = 0; r < 4; ++r)
            plane |= squeeze_nibbles(load<u64>(codes + 8 * r) >> bit & 0x0101010101010101u) << r;
        return plane;
    }

    void write_scales(const Block &block, int block_index, int lane) {
        constexpr Scheme scheme = Type::scheme;
        constexpr int groups = Layout::groups;
        const int first = block_index * (Type::inputs / group_inputs);
        u8 *scales = Layout::scales(tile_, first);
        if constexpr (scheme == Scheme::group || scheme == Scheme::group_min)
            for (int group = first; group < first + Type::inputs / group_inputs; ++group)
                store(Layout::scales(tile_, group) + 32 * (group % groups) + 2 * lane, block.d);
        if constexpr (scheme == Scheme::exponent)
            scales[16 * (first % groups) + lane] = block.scales[0];
        if constexpr (scheme == Scheme::group_min)
            store(scales + 32 * (groups + first % groups) + 2 * lane, block.m);
        if constexpr (scheme == Scheme::super_min) {
            for (int i = 0; i < 8; ++i) {
                scales[16 * i + lane] = block.scales[i];
                scales[16 * (groups + i) + lane] = block.minimums[i];
            }
            store(scales + 32 * groups + 2 * lane, block.d);
            store(scales + 32 * groups + 32 + 2 * lane, block.m);
        }
        if constexpr (scheme == Scheme::super || scheme == Scheme::super16 || scheme == Scheme::super16_min) {
            constexpr int count = scheme == Scheme::super ? 8 : 16;
            for (int i = 0; i < count; ++i)
                scales[16 * i + lane] = block.scales[i];
            store(scales + 16 * count + 2 * lane, block.d);
            if constexpr (scheme == Scheme::super16_min)
                store(scales + 16 * count + 32 + 2 * lane, block.m);
        }
    }

    u8 *tile_;
};

// Whether all numbers are finite, here and below.
template <class Type> bool pack_tile(const TileRows &rows, u8 *tile) {
    std::array<Block, tile_lanes> blocks{}; // lanes without a row stay zero
    TileWriter<Type> writer(tile, rows.k);
    bool finite = true;
    for (int index = 0; index < rows.k / Type::inputs; ++index) {
        for (int lane = 0; lane < rows.lanes; ++lane)
            Type::decode(rows.first + lane * rows.stride + index * Type::bytes, blocks[lane]);
        writer.write(blocks, index);
        for (const Block &block : blocks)
            finite &= is_finite(block.d, F16::exponent) & is_finite(block.m, F16::exponent);
    }
    return finite;
}

template <class Type> bool pack_plain_tile(const TileRows &rows, u8 *tile) {
    using Stored = typename Type::Stored;
    using Device = typename Type::Device;
    if (rows.lanes < tile_lanes)
        std::memset(tile, 0, sizeof(Device) * tile_lanes * rows.k);
    bool finite = true;
    for (int first = 0; first < rows.k; first += group_inputs) // a group at a time keeps the tile's lines in cache
        for (int lane = 0; lane < rows.lanes; ++lane) {
            const u8 *row = rows.first + lane * rows.stride;
            for (int i = first; i < first + group_inputs; ++i) {
                const Stored bits = load<Stored>(row + sizeof(Stored) * i);
                finite &= is_finite(bits, Type::exponent);
                store(tile + sizeof(Device) * (tile_lanes * i + lane), Type::device_bits(bits));
            }
        }
    return finite;
}

// ---- Requantisation to W4 -------------------------------------------------------------------------------------------

// `read` fills the values of `inputs` inputs of one row, starting at the given block.
template <int Inputs, class Read> SquareSums requant_blocks(const TileRows &rows, u8 *tile, Read read) {
    using Layout = Spans<Q4_0>;
    Layout::clear_rest(tile, rows.k);
    float by_lane[tile_lanes][Inputs] = {};
    SquareSums sums;
    for (int index = 0; index < rows.k / Inputs; ++index) {
        for (int lane = 0; lane < rows.lanes; ++lane)
            read(rows.first + lane * rows.stride, index, by_lane[lane]);
        for (int first = 0; first < Inputs; first += group_inputs) {
            const int group = (index * Inputs + first) / group_inputs;
            for (int quad = 0; quad < tile_lanes; quad += int4::lane_count) {
                Lanes values[group_inputs];
                for (int i = 0; i < group_inputs; ++i)
                    for (int lane = 0; lane < int4::lane_count; ++lane)
                        values[i][lane] = by_lane[quad + lane][first + i];
                sums += int4::requant_group(values, Layout::low(tile, group) + 4 * quad,
                                            Layout::scales(tile, group) + 32 * (group % Layout::groups) + 2 * quad);
            }
        }
    }
    return sums;
}

template <class Type> SquareSums requant_tile(const TileRows &rows, u8 *tile) {
    return requant_blocks<Type::inputs>(rows, tile, [](const u8 *row, int index, float *values) {
        Block block;
        Type::decode(row + index * Type::bytes, block);
        values_of<Type>(block, values);
    });
}

template <class Type> SquareSums requant_plain_tile(const TileRows &rows, u8 *tile) {
    return requant_blocks<group_inputs>(rows, tile, [](const u8 *row, int index, float *values) {
        for (int i = 0; i < group_inputs; ++i)
            values[i] =
                Type::value(load<typename Type::Stored>(row + index * Type::bytes + sizeof(typename Type::Stored) * i));
    });
}

// ---- All types ------------------------------------------------------------------------------------------------------

struct Codec {
    int ggml_type, inputs, bytes; // of a block
    std::size_t (*tile_bytes)(int k);
    bool (*pack)(const TileRows &rows, u8 *tile);
    SquareSums (*requant)(const TileRows &rows, u8 *tile);
};

template <class Type> constexpr Codec codec(int ggml_type) {
    return {ggml_type, Type::inputs, Type::bytes, Spans<Type>::tile_bytes, pack_tile<Type>, requant_tile<Type>};
}

template <class Type> constexpr Codec plain_codec(int ggml_type) {
    constexpr auto bytes = [](int k) { return sizeof(typename Type::Device) * tile_lanes * k; };
    return {ggml_type, Type::inputs, Type::bytes, bytes, pack_plain_tile<Type>, requant_plain_tile<Type>};
}

constexpr Codec codecs[] = {
    plain_codec<F32>(0), plain_codec<F16>(1),   codec<Q4_0>(2),     codec<Q4_1>(3),    codec<Q5_0>(6),
    codec<Q5_1>(7),      codec<Q8_0>(8),        codec<Q2_K>(10),    codec<Q3_K>(11),   codec<Q4_K>(12),
    codec<Q5_K>(13),     codec<Q6_K>(14),       codec<IQ2_XXS>(16), codec<IQ2_XS>(17), codec<IQ3_XXS>(18),
    codec<IQ1_S>(19),    codec<IQ4_NL>(20),     codec<IQ3_S>(21),   codec<IQ2_S>(22),  codec<IQ4_XS>(23),
    codec<IQ1_M>(29),    plain_codec<BF16>(30), codec<TQ1_0>(34),   codec<Q1_0>(41),   codec<Q2_0>(42),
    codec<TQ2_0>(35),    codec<MXFP4>(39),
};

// The rows of a matrix or expert stack, uint8 [experts][rows][row_bytes], and a run of its tiles with their place.
struct Job {
    Codec codec;
    const u8 *source;
    std::ptrdiff_t expert_stride, row_stride;
    int rows, tiles_per_expert, k;
    std::size_t tile_bytes;
    u8 *target;
    long long first_tile, tiles;

    TileRows rows_of(long long tile) const {
        const long long index = first_tile + tile, row = index % tiles_per_expert * tile_lanes;
        const u8 *first = source + index / tiles_per_expert * expert_stride + row * row_stride;
        return {first, row_stride, static_cast<int>(std::min<long long>(tile_lanes, rows - row)), k};
    }
};

Job make_job(int ggml_type, const py::buffer_info &rows, const py::buffer_info &target, long long first_tile,
             bool requant) {
    const auto codec = std::find_if(std::begin(codecs), std::end(codecs),
                                    [&](const Codec &candidate) { return candidate.ggml_type == ggml_type; });
    if (codec == std::end(codecs))
        throw py::value_error("no device format for ggml type " + std::to_string(ggml_type));
    if (rows.itemsize != 1 || rows.ndim != 3 || rows.strides[2] != 1 || rows.shape[2] == 0 ||
        rows.shape[2] % codec->bytes != 0)
        throw py::value_error("rows must be uint8 [experts, n, row_bytes] with whole, contiguous blocks");
    if (target.itemsize != 1 || target.ndim != 1 || (target.size > 1 && target.strides[0] != 1))
        throw py::value_error("target must be contiguous uint8 [bytes]");
    Job job{};
    job.codec = *codec;
    job.source = static_cast<const u8 *>(rows.ptr);
    job.expert_stride = rows.strides[0];
    job.row_stride = rows.strides[1];
    job.rows = static_cast<int>(rows.shape[1]);
    job.tiles_per_expert = (job.rows + tile_lanes - 1) / tile_lanes;
    job.k = static_cast<int>(rows.shape[2] / codec->bytes * codec->inputs);
    job.tile_bytes = requant ? Spans<Q4_0>::tile_bytes(job.k) : codec->tile_bytes(job.k);
    job.target = static_cast<u8 *>(target.ptr);
    job.first_tile = first_tile;
    job.tiles = target.size / static_cast<py::ssize_t>(job.tile_bytes);
    const bool whole = target.size % static_cast<py::ssize_t>(job.tile_bytes) == 0 && job.k % group_inputs == 0;
    if (!whole || first_tile < 0 || first_tile + job.tiles > rows.shape[0] * job.tiles_per_expert)
        throw py::value_error("target must hold whole tiles, and the matrix must have them");
    return job;
}

// Runs `work(tile)` for every tile; threads take eight tiles at a time, so that a busy core costs little.
template <class Work> void for_each_tile(long long tiles, int threads, Work work) {
    std::atomic<long long> next{0};
    const auto run = [&] {
        for (long long first; (first = next.fetch_add(8)) < tiles;)
            for (long long tile = first; tile < std::min(first + 8, tiles); ++tile)
                work(tile);
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads && i * 8 < tiles; ++i)
        others.emplace_back(run);
    run();
    for (auto &thread : others)
        thread.join();
}

bool repack(int ggml_type, const py::buffer &rows, const py::buffer &target, long long first_tile, int threads) {
    const py::buffer_info from = rows.request(), to = target.request(true);
    const Job job = make_job(ggml_type, from, to, first_tile, false);
    const py::gil_scoped_release release;
    std::atomic<bool> finite{true};
    for_each_tile(job.tiles, threads, [&](long long tile) {
        if (!job.codec.pack(job.rows_of(tile), job.target + tile * job.tile_bytes))
            finite = false;
    });
    return finite;
}

std::pair<double, double> requant_int4(int ggml_type, const py::buffer &rows, const py::buffer &target,
                                       long long first_tile, int threads) {
    const py::buffer_info from = rows.request(), to = target.request(true);
    const Job job = make_job(ggml_type, from, to, first_tile, true);
    const py::gil_scoped_release release;
    std::vector<SquareSums> sums(job.tiles);
    for_each_tile(job.tiles, threads, [&](long long tile) {
        sums[tile] = job.codec.requant(job.rows_of(tile), job.target + tile * job.tile_bytes);
    });
    SquareSums total; // in tile order: the same figure for every number of threads
    for (const SquareSums &of_tile : sums)
        total += of_tile;
    return {total.error, total.value};
}

} // namespace

void bind_repack(py::module_ &module) {
    using namespace py::literals;
    module.def(
        "repack", repack, "ggml_type"_a, "rows"_a, "target"_a, "first_tile"_a = 0, "threads"_a = 1,
        "Pack `rows`, uint8 [experts, n, row_bytes] as in the file, into the tiles of their device format that "
        "start at `first_tile`; `target`, uint8, has room for the tiles wanted. Returns whether all numbers and scales "
        "are finite. Raises ValueError for an unknown type and shapes that do not fit.");
    module.def("requant_int4", requant_int4, "ggml_type"_a, "rows"_a, "target"_a, "first_tile"_a = 0, "threads"_a = 1,
               "As `repack`, but into W4 tiles whatever the file's type. Returns the sum of the squared errors and the "
               "sum of the squared values.");
}

} // namespace arcmtp
