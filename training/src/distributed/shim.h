// SPDX-License-Identifier: MPL-2.0
// What both parts of the shim share.
#pragma once

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <exception>
#include <string>

namespace fastganseg {

struct Store {
  c10::intrusive_ptr<c10d::Store> store;
};

struct Group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

/// Calls `f` and returns 0, or 1 after an exception, whose message is then in `reason`.
template <typename F>
int attempt(std::string& reason, F&& f) {
  try {
    f();
    return 0;
  } catch (const c10::Error& error) {
    reason = error.what_without_backtrace();
  } catch (const std::exception& error) {
    reason = error.what();
  } catch (...) {
    reason = "unknown C++ exception";
  }
  return 1;
}

inline c10::intrusive_ptr<c10d::Store> prefixed(const Store& store, const char* prefix) {
  return c10::make_intrusive<c10d::PrefixStore>(prefix, store.store);
}

}  // namespace fastganseg
