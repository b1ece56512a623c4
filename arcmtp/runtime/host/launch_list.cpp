#include "launch_list.hpp"

#include "dpctl4pybind11.hpp"
#include <pybind11/stl.h>

namespace py = pybind11;
namespace experimental = sycl::ext::oneapi::experimental;

namespace arcmtp {
namespace {

Argument argument_of(const py::handle &value) {
    if (py::hasattr(value, "pointer"))
        return reinterpret_cast<void *>(value.attr("pointer").cast<std::uintptr_t>());
    if (py::isinstance<py::float_>(value))
        return value.cast<float>();
    return value.cast<std::int32_t>();
}

/// The struct whose members are these pointers and numbers.
Struct struct_of(const std::vector<Argument> &members) {
    Struct bytes;
    const auto align = [&](std::size_t size) { bytes.resize((bytes.size() + size - 1) / size * size); };
    const auto append = [&](const auto &value) {
        align(sizeof value);
        const auto *first = reinterpret_cast<const std::byte *>(&value);
        bytes.insert(bytes.end(), first, first + sizeof value);
    };
    for (const Argument &member : members)
        std::visit(append, member);
    align(alignof(void *));
    return bytes;
}

void set_arguments(sycl::handler &handler, const std::vector<Argument> &values) {
    int index = 0;
    for (const Argument &argument : values)
        std::visit([&](auto value) { handler.set_arg(index++, value); }, argument);
}
void set_arguments(sycl::handler &handler, const Struct &bytes) {
    handler.set_arg(0, experimental::raw_kernel_arg{bytes.data(), bytes.size()});
}

void add(py::object list, std::string name, const sycl::kernel &kernel, std::size_t groups, std::size_t team,
         bool packed, const py::args &arguments) {
    std::vector<Argument> values;
    for (const py::handle &value : arguments)
        values.push_back(argument_of(value));
    Launch launch{std::move(name), kernel, groups, team, std::move(values)};
    if (packed)
        launch.arguments = struct_of(std::get<0>(launch.arguments));
    list.cast<LaunchList &>().add(std::move(launch));
    py::detail::keep_alive_impl(list, arguments); // the buffers live as long as the list
}

} // namespace

void LaunchList::extend(const LaunchList &other) {
    launches_.insert(launches_.end(), other.launches_.begin(), other.launches_.end());
}

void Launch::submit(sycl::queue &queue) const {
    experimental::submit(queue, [&](sycl::handler &handler) { describe(handler); });
}

void Launch::describe(sycl::handler &handler) const {
    std::visit([&](const auto &values) { set_arguments(handler, values); }, arguments);
    handler.parallel_for(sycl::nd_range<1>{groups * team, team}, kernel);
}

sycl::event LaunchList::submit(sycl::queue &queue) const {
    if (launches_.empty())
        return {};
    for (auto launch = launches_.begin(); launch != launches_.end() - 1; ++launch)
        launch->submit(queue);
    return queue.submit([&](sycl::handler &handler) { launches_.back().describe(handler); });
}

std::vector<std::string> LaunchList::names() const {
    std::vector<std::string> names;
    for (const Launch &launch : launches_)
        names.push_back(launch.name);
    return names;
}

void bind_launch_list(py::module_ &module) {
    py::class_<sycl::event>(module, "Event").def("wait", [](sycl::event self) {
        py::gil_scoped_release release;
        self.wait_and_throw();
    });
    py::class_<LaunchList>(module, "LaunchList")
        .def(py::init<>())
        .def("add", &add, py::arg("name"), py::arg("kernel"), py::arg("groups"), py::arg("team"), py::arg("packed"))
        .def("extend", &LaunchList::extend, py::keep_alive<1, 2>())
        .def("names", &LaunchList::names)
        .def("__len__", [](const LaunchList &self) { return self.launches().size(); })
        .def(
            "submit",
            [](const LaunchList &self, sycl::queue queue) {
                py::gil_scoped_release release;
                return self.submit(queue);
            },
            py::arg("queue"));
    module.def(
        "wait",
        [](sycl::queue queue) {
            py::gil_scoped_release release;
            queue.wait_and_throw();
        },
        py::arg("queue"), "Wait for everything on the queue, without the GIL.");
}

} // namespace arcmtp
