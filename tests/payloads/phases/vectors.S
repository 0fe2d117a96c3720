#include "../lib/handlers.h"
