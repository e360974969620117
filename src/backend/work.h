// What a problem asks of any device, for estimates.
#pragma once

#include "regard/plan.h"
#include "regard/problem.h"

namespace regard {

// Operations on visible pairs, and the least traffic: every element of q, k, v and out once, of gradients too. Masks
// are not looked at. `seconds` is 0.
Cost WorkOf(const Problem& p);

}  // namespace regard
