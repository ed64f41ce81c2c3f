// What fastkv-bench does with a model: tests, --sweep, --suite, --breakdown, --edges.
#pragma once

#include <functional>
#include <vector>

#include "bench/arguments.hpp"
#include "bench/record.hpp"
#include "bench/runner.hpp"

namespace fastkv::bench {

/// Every combination of model, arithmetic and threads in turn, loaded. llama-bench's order: the first named varies
/// slowest.
void for_each_engine(const Arguments& arguments, Runner& runner,
                     const std::function<void(Engine&, const EngineOptions&)>& visit);

/// Every combination of cache types, methods and their parameters.
std::vector<RunOptions> run_options(const Arguments& arguments);

/// All tests of one combination, in llama-bench's order.
std::vector<Test> tests(const Arguments& arguments);

/// Each returns the exit status 0; everything else is thrown.
int run_tests(Arguments& arguments);
int run_sweep(Arguments& arguments);
int run_suite(Arguments& arguments);
int run_breakdown(Arguments& arguments);
int run_edges(Arguments& arguments);

}  // namespace fastkv::bench
