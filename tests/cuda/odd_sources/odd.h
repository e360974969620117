quotes " and backslashes \n and \\; semicolons; [brackets] $ENV{HOME} ${X} @X@ )delimiter" %s
	tab, no newline at the end