// Marks in the time of an in-order queue, put there without waiting and read when the work before them has finished.
#pragma once

#include "launch_list.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace arcmtp {

/// The latest `capacity` marks, numbered from 0. A mark is a profiling tag where the device has them; elsewhere a
/// barrier, which needs a queue with profiling.
class TimeMarks {
  public:
    TimeMarks(const sycl::queue &queue, std::size_t capacity);
    std::uint64_t mark(); // its number
    /// Marks before the first launch and after each; the number of the first mark. A command that does nothing comes
    /// before: a CPU's driver begins with a command when the host has submitted them all, and that wait is not the
    /// first launch's.
    std::uint64_t submit(const LaunchList &launches);
    /// Device time between two marks; none if the device has not passed one of them or it is not among the latest.
    std::optional<double> microseconds(std::uint64_t first, std::uint64_t last) const;

  private:
    std::optional<std::uint64_t> nanoseconds(std::uint64_t number) const;
    sycl::queue queue_;
    std::vector<sycl::event> ring_;
    std::shared_ptr<int> word_; // of device memory; what it holds means nothing
    std::uint64_t count_ = 0;
};

bool takes_profiling_tags(const sycl::device &device);
void bind_timing(pybind11::module_ &module);

} // namespace arcmtp
