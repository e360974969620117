// Everything in one include.
#pragma once

#include "regard/attention.h"
#include "regard/device.h"
#include "regard/dtype.h"
#include "regard/executor.h"
#include "regard/export.h"
#include "regard/plan.h"
#include "regard/problem.h"
#include "regard/status.h"
#include "regard/tensor.h"
#include "regard/version.h"
