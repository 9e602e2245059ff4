// SPDX-License-Identifier: MPL-2.0
// What the Rust bindings of libtorch lack for training on several processes: the key-value store, collective
// operations over gloo, and the reducer of DistributedDataParallel. A library of its own, loaded only with more than
// one rank. Every function that returns int returns 0, or 1 with the reason in fastganseg_distributed_error(); none
// lets an exception through.

#include "shim.h"

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

using fastganseg::Group;
using fastganseg::Store;

namespace {

thread_local std::string reason;
thread_local std::vector<uint8_t> value;

template <typename F>
int attempt(F&& f) {
  return fastganseg::attempt(reason, std::forward<F>(f));
}

// Drops the warnings of the reducer: that every parameter has a gradient, which is the normal case here, and that
// gradients of depthwise kernels have other strides of dimensions of size 1.
struct Filter : c10::WarningHandler {
  void process(const c10::Warning& warning) override {
    if (std::strstr(warning.source_location().file, "reducer") == nullptr) {
      c10::WarningHandler::process(warning);
    }
  }
};

std::vector<at::Tensor> list(at::Tensor** tensors, size_t count) {
  std::vector<at::Tensor> result;
  result.reserve(count);
  std::transform(tensors, tensors + count, std::back_inserter(result), [](at::Tensor* tensor) { return *tensor; });
  return result;
}

}  // namespace

extern "C" {

const char* fastganseg_distributed_error() {
  return reason.c_str();
}

// The libtorch that this was compiled against; C++ objects are exchanged with no other.
const char* fastganseg_distributed_libtorch() {
  return TORCH_VERSION;
}

// Connects to the store at host:port. With a listening socket, `listener` >= 0, which is taken over, also serves it.
int fastganseg_distributed_store_new(
    const char* host, int port, int listener, int64_t timeout_ms, const char* prefix, Store** out) {
  return attempt([&] {
    c10d::TCPStoreOptions options;
    options.port = static_cast<std::uint16_t>(port);
    options.isServer = listener >= 0;
    if (listener >= 0) {
      options.masterListenFd = listener;
    }
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(std::string(host), options);
    *out = new Store{c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(store))};
  });
}

void fastganseg_distributed_store_free(Store* store) {
  attempt([&] { delete store; });
}

int fastganseg_distributed_store_set(Store* store, const char* key, const uint8_t* data, size_t length) {
  return attempt([&] { store->store->set(key, std::vector<uint8_t>(data, data + length)); });
}

// Sets the value if the key has none.
int fastganseg_distributed_store_set_first(Store* store, const char* key, const uint8_t* data, size_t length) {
  return attempt([&] { store->store->compareSet(key, std::vector<uint8_t>(), std::vector<uint8_t>(data, data + length)); });
}

// Gives the value, valid until the next call on this thread, or null if the key has none.
int fastganseg_distributed_store_get(Store* store, const char* key, const uint8_t** data, size_t* length) {
  return attempt([&] {
    *data = nullptr;
    *length = 0;
    if (store->store->check({key})) {
      value = store->store->get(key);
      static const uint8_t empty = 0;
      *data = value.empty() ? &empty : value.data();
      *length = value.size();
    }
  });
}

int fastganseg_distributed_store_add(Store* store, const char* key, int64_t amount, int64_t* sum) {
  return attempt([&] { *sum = store->store->add(key, amount); });
}

// Connects all ranks over gloo. `address`: the local address to use; empty = GLOO_SOCKET_IFNAME, else that of the
// host's name.
int fastganseg_distributed_group_new(
    Store* store, int rank, int size, const char* address, int64_t timeout_ms, Group** out) {
  return attempt([&] {
    using c10d::ProcessGroupGloo;
    auto options = ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    if (*address != '\0') {
      options->devices.push_back(ProcessGroupGloo::createDeviceForHostname(address));
    } else if (interface != nullptr && *interface != '\0') {
      options->devices.push_back(ProcessGroupGloo::createDeviceForInterface(interface));
    } else {
      options->devices.push_back(ProcessGroupGloo::createDefaultDevice());
    }
    auto gloo = c10::make_intrusive<ProcessGroupGloo>(fastganseg::prefixed(*store, "gloo"), rank, size, options);
    auto group = c10::make_intrusive<c10d::ProcessGroup>(fastganseg::prefixed(*store, "group"), rank, size);
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    *out = new Group{std::move(group)};
  });
}

void fastganseg_distributed_group_free(Group* group) {
  attempt([&] { delete group; });
}

// Uses gloo for CUDA tensors too, through the memory of the host.
int fastganseg_distributed_group_gloo_on_cuda(Group* group) {
  return attempt([&] {
    auto gloo = group->group->getBackend(c10::DeviceType::CPU);
    group->group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::GLOO, gloo);
  });
}

// Replaces the tensor by its sum over all ranks.
int fastganseg_distributed_all_reduce(Group* group, at::Tensor* tensor) {
  return attempt([&] {
    std::vector<at::Tensor> tensors{*tensor};
    group->group->getBackend(tensor->device().type())->allreduce(tensors)->wait();
  });
}

// Replaces the tensors by those of rank 0.
int fastganseg_distributed_broadcast(Group* group, at::Tensor** tensors, size_t count) {
  return attempt([&] { c10d::broadcast_coalesced(group->group, list(tensors, count), c10d::kDefaultBucketBytesCap, 0); });
}

// The reducer of DistributedDataParallel. `parameters`: leaves that require gradients, in the order in which the
// backward pass completes them. The first bucket is small so that the first all-reduce begins early.
int fastganseg_distributed_reducer_new(Group* group, at::Tensor** parameters, size_t count, c10d::Reducer** out) {
  return attempt([&] {
    auto all = list(parameters, count);
    const std::vector<bool> dense(count, false);
    const std::vector<size_t> limits{c10d::kDefaultFirstBucketBytes, c10d::kDefaultBucketBytesCap};
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(all, limits, dense));
    std::unordered_map<size_t, std::string> names;
    for (size_t i = 0; i < count; ++i) {
      names[i] = std::to_string(i);
    }
    *out = new c10d::Reducer(
        std::move(all),
        std::move(buckets),
        group->group,
        dense,
        c10d::kDefaultBucketBytesCap,
        /*find_unused_parameters=*/true,
        /*gradient_as_bucket_view=*/false,
        std::move(names),
        c10d::kDefaultFirstBucketBytes,
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/{});
  });
}

void fastganseg_distributed_reducer_free(c10d::Reducer* reducer) {
  attempt([&] { delete reducer; });
}

// The next backward pass from `loss` averages the gradients over all ranks.
int fastganseg_distributed_reducer_prepare(c10d::Reducer* reducer, const at::Tensor* loss) {
  return attempt([&] {
    // For this thread, which runs the backward pass.
    static Filter filter;
    c10::WarningUtils::set_warning_handler(&filter);
    reducer->prepare_for_forward();
    reducer->prepare_for_backward({*loss});
  });
}

}  // extern "C"
