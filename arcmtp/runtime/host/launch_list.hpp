// Kernel calls that are put together once and submitted with one call.
#pragma once

#include <pybind11/pybind11.h>
#include <sycl/sycl.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace arcmtp {

using Argument = std::variant<void *, std::int32_t, float>;
using Struct = std::vector<std::byte>;

/// One kernel call: `groups` work-groups of `team` work-items each, with its arguments in order, or a struct of them.
struct Launch {
    std::string name;
    sycl::kernel kernel;
    std::size_t groups;
    std::size_t team;
    std::variant<std::vector<Argument>, Struct> arguments;

    void submit(sycl::queue &queue) const; // without an event: that takes 2.2 instead of 3.5 µs (docs/log.md)
    void describe(sycl::handler &handler) const;
};

/// Launches in the order in which they run.
class LaunchList {
  public:
    void add(Launch launch) { launches_.push_back(std::move(launch)); }
    void extend(const LaunchList &other);
    sycl::event submit(sycl::queue &queue) const; // the last launch's event
    std::vector<std::string> names() const;
    const std::vector<Launch> &launches() const { return launches_; }

  private:
    std::vector<Launch> launches_;
};

// Adds `LaunchList`, `Event` and `wait`.
void bind_launch_list(pybind11::module_ &module);

} // namespace arcmtp
