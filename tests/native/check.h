// The least a native test needs. Include it from one source file per program; that file's tests
// run in order when the program does, and the exit code is 1 if any check failed.
#pragma once

#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int failures = 0;

struct Registered {
  Registered(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

inline void report(const char* file, int line, const std::string& what) {
  // A loop over a million inputs need not say the same a million times.
  if (++failures <= 20) std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

template <class A, class B>
[[gnu::noinline]] void equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream out;
  out << text << "\n    left:  " << a << "\n    right: " << b;
  report(file, line, out.str());
}

}  // namespace check

#define TEST(name)                                              \
  static void name();                                           \
  static const check::Registered name##_registered{#name, name}; \
  static void name()
#define CHECK(condition) \
  do { if (!(condition)) check::report(__FILE__, __LINE__, #condition); } while (false)
#define CHECK_EQ(a, b) check::equal((a), (b), #a " == " #b, __FILE__, __LINE__)

int main() {
  for (const check::Test& test : check::tests()) {
    const int before = check::failures;
    test.body();
    std::printf("%s %s\n", check::failures == before ? "ok  " : "FAIL", test.name);
  }
  std::printf("%zu tests, %d failed checks\n", check::tests().size(), check::failures);
  return check::failures == 0 && !check::tests().empty() ? 0 : 1;
}
