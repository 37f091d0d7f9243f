from rftkit.cli import main

raise SystemExit(main())
