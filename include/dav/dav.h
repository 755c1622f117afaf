/* All of the public interface. */
#pragma once
#include "dav/config.h"
#include "dav/dtype.h"
#include "dav/graph.h"
#include "dav/model.h"
#include "dav/nn.h"
#include "dav/objective.h"
#include "dav/plugin.h"
