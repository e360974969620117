Umlaute: äöü, 汉字
