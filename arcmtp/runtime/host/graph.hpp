// A launch list that is recorded once and replayed with one call.
#pragma once

#include "launch_list.hpp"

#include <cstddef>
#include <optional>
#include <string>

namespace arcmtp {

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

// Adds `Graph` and `graph_support`.
void bind_graph(pybind11::module_ &module);

} // namespace arcmtp
