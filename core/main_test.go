package natslease

import (
	"testing"

	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }
