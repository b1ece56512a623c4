#include "memory.hpp"

#include "instruction.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace xe2 {
namespace {

constexpr std::size_t POISONED_BYTES = 16 << 20; // larger ones would cost the host memory that nothing may ever use
constexpr int POISON = 0xA5;

std::uint8_t *reserve(std::size_t bytes) {
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        throw Fault("this machine has no room for " + std::to_string(bytes >> 20) + " MiB of the card's memory");
    return static_cast<std::uint8_t *>(at);
}

bool begins_before(const Allocation &a, std::uint64_t address) { return a.begin < address; }
bool begins_behind(std::uint64_t address, const Allocation &a) { return address < a.begin; }

} // namespace

void Memory::insert(const Allocation &allocation) {
    allocations_.insert(std::lower_bound(allocations_.begin(), allocations_.end(), allocation.begin, begins_before),
                        allocation);
}

void Memory::add_device(std::uint64_t address, std::size_t bytes, bool track) {
    Allocation allocation{address, bytes, reserve(bytes), track ? reserve(bytes) : nullptr, true};
    if (bytes <= POISONED_BYTES)
        std::memset(allocation.host, POISON, bytes);
    insert(allocation);
    device_bytes_ += bytes;
}

void Memory::add_mapped(std::uint64_t address, std::size_t bytes, std::uint8_t *host) {
    insert({address, bytes, host, nullptr, false});
}

void Memory::remove(std::uint64_t address) {
    const auto found = std::lower_bound(allocations_.begin(), allocations_.end(), address, begins_before);
    if (found == allocations_.end() || found->begin != address)
        return;
    if (found->owned) {
        munmap(found->host, found->bytes);
        if (found->defined)
            munmap(found->defined, found->bytes);
        device_bytes_ -= found->bytes;
    }
    allocations_.erase(found);
}

const Allocation *Memory::find(std::uint64_t address, std::size_t bytes) const {
    const auto next = std::upper_bound(allocations_.begin(), allocations_.end(), address, begins_behind);
    if (next == allocations_.begin())
        return nullptr;
    const Allocation &found = *(next - 1);
    return found.holds(address, bytes) ? &found : nullptr;
}

bool Memory::overlaps(std::uint64_t address, std::size_t bytes) const {
    for (const Allocation &a : allocations_)
        if (address < a.begin + a.bytes && a.begin < address + bytes)
            return true;
    return false;
}

std::string Memory::describe(std::uint64_t address, std::size_t bytes) const {
    char text[160];
    const auto next = std::upper_bound(allocations_.begin(), allocations_.end(), address, begins_behind);
    if (next == allocations_.begin())
        std::snprintf(text, sizeof text, "%zu bytes at 0x%llx, before every allocation", bytes,
                      (unsigned long long)address);
    else
        std::snprintf(text, sizeof text, "%zu bytes at 0x%llx, byte %llu of an allocation of %zu", bytes,
                      (unsigned long long)address, (unsigned long long)(address - (next - 1)->begin),
                      (next - 1)->bytes);
    return text;
}

} // namespace xe2
