// Which smlp this is: for --version, run.json, checkpoints and smlp_build_info.
#pragma once

namespace smlp {

const char* version();   // of the project, from CMakeLists.txt
const char* compiler();  // "GCC 12.2.0"

}  // namespace smlp
