/* The style sheet of a run's page. */
#pragma once
extern const char page_style[];
