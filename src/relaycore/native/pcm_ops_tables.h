// The tables that pcm_ops.cpp chooses from, each in a file of its own.
#pragma once

#include "relaycore/pcm_ops.h"

namespace relaycore {

extern const PcmOps kPcmOpsScalar;
extern const PcmOps kPcmOpsSse2;
extern const PcmOps kPcmOpsAvx2;
extern const PcmOps kPcmOpsAvx512;
extern const PcmOps kPcmOpsNeon;

}  // namespace relaycore
