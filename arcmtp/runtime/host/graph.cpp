#include "graph.hpp"

#include "dpctl4pybind11.hpp"

#include <chrono>

namespace py = pybind11;

namespace arcmtp {
namespace {

template <class WORK> double milliseconds(WORK work) {
    const auto began = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
}

std::string graph_support(const sycl::device &device) {
    if (device.has(sycl::aspect::ext_oneapi_graph))
        return "full";
    return device.has(sycl::aspect::ext_oneapi_limited_graph) ? "limited" : "none";
}

} // namespace

Graph::Graph(const LaunchList &launches, sycl::queue &queue) : recorded_(queue.get_context(), queue.get_device()) {
    capture_ms_ = milliseconds([&] {
        recorded_.begin_recording(queue);
        launches.submit(queue);
        recorded_.end_recording(queue);
    });
    finalise_ms_ = milliseconds([&] { executable_.emplace(recorded_.finalize()); });
}

sycl::event Graph::replay(sycl::queue &queue) { return queue.ext_oneapi_graph(*executable_); }

void Graph::describe(const std::string &path) const { recorded_.print_graph(path, true); }

void bind_graph(py::module_ &module) {
    module.def("graph_support", &graph_support, py::arg("device"), "'full', 'limited' or 'none'.");
    py::class_<Graph>(module, "Graph")
        .def(py::init([](const LaunchList &launches, sycl::queue queue) {
                 py::gil_scoped_release release;
                 return Graph(launches, queue);
             }),
             py::arg("launches"), py::arg("queue"), py::keep_alive<1, 2>())
        .def(
            "replay",
            [](Graph &self, sycl::queue queue) {
                py::gil_scoped_release release;
                return self.replay(queue);
            },
            py::arg("queue"))
        .def("describe", &Graph::describe, py::arg("path"))
        .def_property_readonly("nodes", &Graph::nodes)
        .def_property_readonly("capture_ms", &Graph::capture_ms)
        .def_property_readonly("finalise_ms", &Graph::finalise_ms);
}

} // namespace arcmtp
