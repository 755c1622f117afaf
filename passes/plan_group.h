/* Groups of steps for one launch: inside of planning. */
#pragma once
#include "passes/plan.h"

/* Orders the steps anew and sets their groups; how NULL: each step is a group and stays where it is. */
void plan_group(Plan *p, Arena *arena, const PlanGrouping *how);
