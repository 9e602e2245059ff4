// SPDX-License-Identifier: MPL-2.0
// Collective operations on CUDA tensors over NCCL. A library of its own, loaded only with more than one rank and a
// CUDA device. Conventions as in shim.cpp.

#include "shim.h"

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace {

thread_local std::string reason;

}  // namespace

extern "C" {

const char* fastganseg_nccl_error() {
  return reason.c_str();
}

// Connects the CUDA devices of all ranks; each device's communicator is made at its first operation.
int fastganseg_nccl_attach(fastganseg::Store* store, fastganseg::Group* group, int64_t timeout_ms) {
  return fastganseg::attempt(reason, [&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(
        fastganseg::prefixed(*store, "nccl"), group->group->getRank(), group->group->getSize(), options);
    group->group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, nccl);
  });
}

}  // extern "C"
