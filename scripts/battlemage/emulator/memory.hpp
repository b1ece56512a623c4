// The memory that kernels may touch: every allocation by its address, with what backs it on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace xe2 {

struct Allocation {
    std::uint64_t begin = 0;
    std::size_t bytes = 0;
    std::uint8_t *host = nullptr;    // the content
    std::uint8_t *defined = nullptr; // with checks, of device memory: 1 where a byte was written
    bool owned = false;              // `host` was made here, the address is the driver's alone

    bool holds(std::uint64_t address, std::size_t count) const {
        return address >= begin && count <= bytes && address - begin <= bytes - count;
    }
};

class Memory {
  public:
    /// Device memory: the driver's address cannot be dereferenced, so its content lies elsewhere. `track` what is
    /// written.
    void add_device(std::uint64_t address, std::size_t bytes, bool track);
    /// Memory that the host has at that same address.
    void add_host(std::uint64_t address, std::size_t bytes) { add_mapped(address, bytes, (std::uint8_t *)address); }
    void add_mapped(std::uint64_t address, std::size_t bytes, std::uint8_t *host);
    void remove(std::uint64_t address);

    /// The allocation that holds all of these bytes, or null.
    const Allocation *find(std::uint64_t address, std::size_t bytes) const;
    /// Bytes of device memory in all.
    std::size_t device_bytes() const { return device_bytes_; }
    /// Whether any of these bytes lie in memory that is known here.
    bool overlaps(std::uint64_t address, std::size_t bytes) const;
    /// What an address that nothing holds is near to.
    std::string describe(std::uint64_t address, std::size_t bytes) const;

  private:
    std::vector<Allocation> allocations_; // by address
    std::size_t device_bytes_ = 0;
    void insert(const Allocation &allocation);
};

} // namespace xe2
