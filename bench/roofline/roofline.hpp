// roofline: the machine's limits, then every kernel, whole prompts and generation as shares of the limit that bounds
// it.
#pragma once

namespace fastkv::bench {

int run_roofline(int argc, const char* const* argv);

}  // namespace fastkv::bench
