// Kernels from SYCL source text and lists of their launches: the two things that dpctl has no call for.
#pragma once

#include <pybind11/pybind11.h>
#include <sycl/sycl.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
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
    sycl::event submit(sycl::queue &queue) const; // that of the last launch
    std::vector<std::string> names() const;
    const std::vector<Launch> &launches() const { return launches_; }

  private:
    std::vector<Launch> launches_;
};

/// A launch list, recorded once. Nothing in it is ever updated: what changes between replays lies in device memory.
class Graph {
  public:
    Graph(const LaunchList &launches, sycl::queue &queue);
    sycl::event replay(sycl::queue &queue);
    void describe(const std::string &path) const; // in the DOT language, with the kernels' names
    std::size_t nodes() const { return recorded_.get_nodes().size(); }
    double capture_ms() const { return capture_ms_; }
    double finalise_ms() const { return finalise_ms_; }

  private:
    using State = sycl::ext::oneapi::experimental::graph_state;
    sycl::ext::oneapi::experimental::command_graph<State::modifiable> recorded_;
    std::optional<sycl::ext::oneapi::experimental::command_graph<State::executable>> executable_;
    double capture_ms_ = 0, finalise_ms_ = 0;
};

void bind_kernels(pybind11::module_ &module);

} // namespace arcmtp
